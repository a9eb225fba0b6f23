// Arguments: models/default
// Tells what a checkpoint can take, and what is wrong with one that can't be opened.
#include <cstdio>

#include "core/error.h"
#include "fusion/model.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: open_checkpoint DIRECTORY\n");
    return 2;
  }
  try {
    const auto model = fusion::Model::open(argv[1]);

    std::printf("%s: %s, %.1f M parameters\n", argv[1], model->family.c_str(),
                static_cast<double>(model->weights->parameters()) / 1e6);
    if (model->vision) std::printf("takes images: rows of %d\n", int(model->vision->width()));
    if (model->audio) std::printf("takes sound: rows of %d\n", int(model->audio->width()));
    if (model->decoder)
      std::printf("writes text: context %d\n", int(model->decoder->max_positions()));
    for (const std::string& name : model->unread) std::printf("not used: %s\n", name.c_str());
    return 0;
  } catch (const UnsupportedError& error) {  // a good checkpoint, but nothing that Tessera knows
    std::fprintf(stderr, "not supported: %s\n", error.what());
  } catch (const Error& error) {  // IoError, FormatError, ShapeError: files missing or damaged
    std::fprintf(stderr, "can't be opened: %s\n", error.what());
  }
  return 1;
}
