#include <filesystem>

#include "cli/options.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/text_file.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> files;
  std::string out, end = "<|endoftext|>";
  text::BpeTrainerOptions trainer;
  bool json = false;
};

int run(Options o) {
  o.trainer.special_tokens = {o.end};
  text::BpeTrainer trainer(o.trainer);
  std::size_t bytes = 0;
  for (const std::string& file : o.files) {
    const std::string text = read_text_file(file);
    bytes += text.size();
    trainer.add(text);
  }
  Progress progress("tokenizer", "tokens", !o.json);
  std::int64_t tokens = 0;
  const std::string made = trainer.train([&](std::int64_t done, std::int64_t wanted) {
    tokens = done;
    if (done % 100 == 0) progress.show(static_cast<double>(done), static_cast<double>(wanted));
  });
  progress.clear();
  make_folders(o.out);
  write_file(fs::path(o.out) / "tokenizer.json", made);
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"bos_token", o.end},
                       {"eos_token", o.end},
                       {"clean_up_tokenization_spaces", false}};
  write_file(fs::path(o.out) / "tokenizer_config.json", config.dump(2) + "\n");
  const auto size = text::Tokenizer::open(o.out).vocab_size();
  if (o.json) {
    print_json({{"tokenizer", o.out}, {"tokens", size}, {"bytes", bytes}});
  } else {
    print_line(concat(o.out, ": ", size, " tokens, from ", bytes, " bytes of text"));
  }
  if (size < o.trainer.vocab_size)
    report(concat("only ", size, " tokens: no other pair is found ", o.trainer.min_frequency,
                  " times; more text gives more"));
  return kOk;
}

}  // namespace

Run add_train_tokenizer(Command& train) {
  auto o = std::make_shared<Options>();
  Command command =
      train.add_command("tokenizer", "Learn a byte-level BPE tokenizer from text files");
  command.add_option("FILE", o->files, "Text files").required();
  command.add_option("-o,--out", o->out, "Folder for tokenizer.json").type_name("DIR").required();
  command.add_option("--vocab-size", o->trainer.vocab_size, "Tokens")
      .range(257, 1 << 22)
      .show_default();
  command.add_option("--min-frequency", o->trainer.min_frequency, "Merge no pair that is rarer")
      .non_negative()
      .show_default();
  command.add_option("--end-token", o->end, "The token between documents").show_default();
  command.add_flag("--json", o->json, "Print one JSON object");
  command.footer("Example:\n  tessera train tokenizer --vocab-size 4096 -o tokenizer text.txt");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
