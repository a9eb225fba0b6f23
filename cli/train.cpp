#include "cli/options.h"

namespace tessera::cli {

Run add_train(CLI::App& app) {
  CLI::App* command = app.add_subcommand("train", "Train a tokenizer or a language model");
  command->require_subcommand(1);
  std::vector<std::pair<CLI::App*, Run>> commands;
  for (auto* add : {add_train_tokenizer, add_train_gpt}) {
    Run work = add(*command);
    commands.emplace_back(command->get_subcommands([](CLI::App*) { return true; }).back(),
                          std::move(work));
  }
  command->footer("Help:\n  tessera train gpt --help");
  return [commands]() -> int {
    for (const auto& [sub, work] : commands) {
      if (sub->parsed()) return work();
    }
    return kUsage;
  };
}

}  // namespace tessera::cli
