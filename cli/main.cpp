#include <csignal>
#include <cstdio>
#include <iostream>
#include <utility>
#include <vector>

#include "cli/options.h"
#include "core/error.h"
#include "core/version.h"

namespace {

using namespace tessera;

int run(int argc, char** argv) {
  CLI::App app(
      "Text, images and speech through one decoder.\n\nOpens checkpoints as published (Hugging "
      "Face directories)"
      " on this machine; nothing is downloaded.\nWithout --model, the default model is used.",
      "tessera");
  app.set_version_flag("--version", concat("tessera ", kVersion));
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "Examples:\n"
      "  tessera caption photo.jpg\n"
      "  tessera transcribe --timestamps speech.mp3\n"
      "  tessera prompt \"{image} A man\" --image photo.jpg\n"
      "  tessera COMMAND --help\n"
      "Results go to standard output, all else to standard error.\n"
      "Exit codes: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.");
  std::vector<std::pair<CLI::App*, cli::Run>> commands;
  for (auto* add : {cli::add_caption, cli::add_transcribe, cli::add_prompt, cli::add_generate,
                    cli::add_classify, cli::add_tokenize, cli::add_info, cli::add_bench,
                    cli::add_perplexity, cli::add_train}) {
    cli::Run work = add(app);
    commands.emplace_back(app.get_subcommands([](CLI::App*) { return true; }).back(),
                          std::move(work));
  }
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return concat("tessera: ", error.what(), "\nRun with --help for more information.\n");
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      cli::report(concat("\"", argv[1], "\" is not a command; tessera --help lists them"));
      return cli::kUsage;
    }
    return app.exit(error) == 0 ? cli::kOk : cli::kUsage;
  }
  std::cerr.rdbuf(nullptr);  // OpenCV's own words about a bad file; report() does not use it
  for (const auto& [command, work] : commands) {
    if (command->parsed()) return work();
  }
  return cli::kUsage;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return run(argc, argv);
  } catch (const tessera::cli::ClosedPipe&) {
    return tessera::cli::kOk;
  } catch (const tessera::ArgumentError& error) {
    tessera::cli::report(error.what());
    return tessera::cli::kUsage;
  } catch (const std::bad_alloc&) {
    tessera::cli::report("not enough memory");
  } catch (const std::exception& error) {
    tessera::cli::report(error.what());
  }
  return tessera::cli::kFailed;
}
