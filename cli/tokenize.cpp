#include <sstream>

#include "cli/options.h"
#include "core/error.h"
#include "core/text_file.h"
#include "text/tokenizer.h"

namespace tessera::cli {
namespace {

struct Options {
  std::string model, text, file;
  bool ids = false, special = false, add_special = false, decode = false, json = false;
};

std::vector<std::int32_t> parse_ids(std::string text) {
  for (char& c : text) {
    if (c == ',' || c == '[' || c == ']') c = ' ';
  }
  std::istringstream in(text);
  std::vector<std::int32_t> ids;
  for (std::string word; in >> word;) {
    std::size_t used = 0;
    try {
      ids.push_back(std::stoi(word, &used));
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size()) throw ArgumentError(concat("\"", word, "\" is not a token id"));
  }
  return ids;
}

int run(const Options& o) {
  const auto tokenizer = text::Tokenizer::open(o.model.empty() ? fusion::default_model()
                                                               : std::filesystem::path(o.model));
  constexpr std::size_t kMostText = std::size_t{256} << 20;
  const std::string& name = o.file.empty() ? o.text : o.file;
  const std::string input = name == "-"      ? read_stdin(kMostText)
                            : o.file.empty() ? o.text
                                             : read_text_file(o.file);
  const auto ids = o.decode ? parse_ids(input)
                            : tokenizer.encode(input, {.add_special_tokens = o.add_special,
                                                       .parse_special = o.special});
  if (o.json) {
    std::vector<std::string> tokens;
    for (const std::int32_t id : ids) tokens.push_back(tokenizer.token(id));
    print_json({{"file", o.file},
                {"text", tokenizer.decode(ids, {.skip_special_tokens = false})},
                {"ids", ids},
                {"tokens", tokens}});
  } else if (o.decode) {
    print_line(tokenizer.decode(ids, {.skip_special_tokens = false}));
  } else if (o.ids) {
    print_line(Json(ids).dump());
  } else {
    for (const std::int32_t id : ids) print_line(concat(id, "\t", tokenizer.token(id)));
  }
  return kOk;
}

}  // namespace

Run add_tokenize(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("tokenize", "Show the tokens of a text");
  command.add_option("TEXT", o->text, "The text; - is standard input").type_name("");
  command.add_option("-f,--file", o->file, "Read the text from a file").type_name("FILE");
  command
      .add_option("-m,--model", o->model,
                  "Checkpoint directory, or a tokenizer.json (default: the default model)")
      .type_name("DIR");
  command.add_flag("--ids", o->ids, "Print the ids alone, as one list");
  command.add_flag("--special", o->special, "Special tokens written in the text count as such");
  command.add_flag("--add-special", o->add_special,
                   "Add what the tokenizer's template adds (BOS, EOS)");
  command.add_flag("--decode", o->decode, "The text is a list of ids: print what they say");
  command.add_flag("--json", o->json, "Print one JSON object");
  command.footer(
      "Examples:\n  tessera tokenize \"Hello world\"\n  tessera tokenize --model gpt2 \"Hello "
      "world\"\n"
      "  tessera tokenize --model gpt2 --ids - < book.txt\n  tessera tokenize --model gpt2 "
      "--decode \"15496, 995\"");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
