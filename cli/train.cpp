#include "cli/options.h"

namespace tessera::cli {

Run add_train(Command& program) {
  Command command =
      program.add_command("train", "Train a tokenizer, a language model, or towers for retrieval");
  command.footer("Help:\n  tessera train gpt --help");
  return command.choose({add_train_tokenizer, add_train_gpt, add_train_retrieval});
}

}  // namespace tessera::cli
