// Arguments: docs/media/astronaut.jpg
// Says what a photo shows, in under 30 lines: open a checkpoint, make a session, give it a prompt.
#include <cstdio>
#include <exception>

#include "fusion/session.h"
#include "vision/image.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: caption PHOTO [CHECKPOINT]\n");
    return 2;
  }
  try {
    // A directory as published on the Hugging Face hub; without one, the default model.
    const auto model = fusion::Model::open(argc > 2 ? argv[2] : fusion::default_model());
    fusion::Session session(model);  // owns threads and caches; sessions may share a model

    const fusion::Prompt prompt{vision::load_image(argv[1])};
    const fusion::Result result = session.generate(prompt, {.task = "caption"});

    std::printf("%s\n", result.text.c_str());
    return result.text.empty() ? 1 : 0;
  } catch (const std::exception& error) {  // tessera::Error says what, where, and what to do
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
