#include <csignal>
#include <cstdio>

#include "cli/options.h"
#include "core/error.h"
#include "core/version.h"

namespace {

using namespace tessera;

int run(int argc, char** argv) {
  cli::Program program(
      "Text, images and speech through one decoder.\n\nOpens checkpoints as published (Hugging "
      "Face directories)"
      " on this machine; nothing is downloaded.\nWithout --model, the default model is used.",
      "Examples:\n"
      "  tessera caption photo.jpg\n"
      "  tessera transcribe --timestamps speech.mp3\n"
      "  tessera prompt \"{image} A man\" --image photo.jpg\n"
      "  tessera COMMAND --help\n"
      "Results go to standard output, all else to standard error.\n"
      "Exit codes: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.",
      concat("tessera ", kVersion));
  return program.run(argc, argv,
                     {cli::add_caption, cli::add_transcribe, cli::add_prompt, cli::add_generate,
                      cli::add_classify, cli::add_embed, cli::add_tokenize, cli::add_info,
                      cli::add_bench, cli::add_perplexity, cli::add_evaluate, cli::add_quantize,
                      cli::add_train, cli::add_finetune, cli::add_merge, cli::add_plot});
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
