// Arguments: docs/media/astronaut.jpg docs/media/weather.mp3
// A prompt of text, a photo and a recording, streamed as it is written. The order of the parts is
// the order of the prompt; any number of each may stand anywhere in the text.
#include <cstdio>
#include <exception>

#include "audio/sound.h"
#include "fusion/session.h"
#include "vision/image.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 3) {
    std::fprintf(stderr, "usage: mixed_prompt PHOTO RECORDING [CHECKPOINT]\n");
    return 2;
  }
  try {
    fusion::Session session(fusion::Model::open(argc > 3 ? argv[3] : fusion::default_model()));

    fusion::Prompt prompt;
    prompt.push_back(vision::load_image(argv[1]));
    prompt.push_back(audio::load_sound(argv[2]));
    prompt.push_back(fusion::Text{" A woman"});

    fusion::GenerateOptions options;
    options.sampling = session.defaults(options.task);  // what the checkpoint says ...
    options.sampling->max_new_tokens = 20;              // ... but short

    std::printf("A woman");
    const fusion::Result result = session.generate(prompt, options, [](const std::string& piece) {
      std::printf("%s", piece.c_str());
      std::fflush(stdout);
      return true;  // false would stop
    });
    std::printf("\n(%s after %zu tokens)\n", text::name_of(result.stop_reason), result.ids.size());
    return result.ids.empty() ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
