#include "cli/options.h"
#include "core/error.h"
#include "core/text_file.h"
#include "text/score.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> files;
  std::int64_t context = 1024;
};

int run(const Options& o) {
  const auto model = o.common.open();
  if (!model->decoder)
    throw UnsupportedError(concat(model->path.string(), ": this checkpoint has no text decoder"));
  Context ctx(o.common.context());
  const std::int64_t context = std::min(o.context, model->decoder->max_positions());
  return for_each_file(o.files, o.common.json, [&](const std::string& file) {
    constexpr std::size_t kMostText = std::size_t{256} << 20;
    const std::string text = file == "-" ? read_stdin(kMostText) : read_text_file(file);
    const auto ids = model->tokenizer->encode(text, {.add_special_tokens = true});
    const auto scores = text::log_probabilities(ctx, *model->decoder, ids, context);
    const double result = text::perplexity(scores);
    if (o.common.json) {
      print_json({{"file", file},
                  {"perplexity", result},
                  {"tokens", scores.size()},
                  {"bytes", text.size()}});
    } else {
      char number[32];
      std::snprintf(number, sizeof number, "%.4f", result);
      print_line(o.files.size() > 1 ? concat(file, "\t", number) : number);
    }
  });
}

}  // namespace

Run add_perplexity(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("perplexity", "How well a model foresees a text");
  command.add_option("FILE", o->files, "Text files; - is standard input").required();
  command.add_option("--context", o->context, "Most tokens that are seen before one")
      .range(2, 1 << 20)
      .show_default();
  o->common.add_to(command, false);
  command.footer("Example:\n  tessera perplexity --model gpt2 story.txt");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
