// Arguments: docs/media/weather.mp3
// Writes down what is said in a recording, segment by segment as they become final.
#include <cstdio>
#include <exception>

#include "audio/sound.h"
#include "fusion/transcribe.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: transcribe RECORDING [CHECKPOINT]\n");
    return 2;
  }
  try {
    fusion::Session session(fusion::Model::open(argc > 2 ? argv[2] : fusion::default_model()));
    const audio::Sound sound = audio::load_sound(argv[1]);  // anything FFmpeg reads, videos too
    if (!sound.warning.empty()) std::fprintf(stderr, "%s: %s\n", argv[1], sound.warning.c_str());

    fusion::TranscribeHooks hooks;
    hooks.on_segment = [](const fusion::Segment& s) {
      std::printf("%6.2f - %6.2f %s\n", s.start, s.end, s.text.c_str());
    };
    const fusion::Transcript transcript = fusion::transcribe(session, sound.samples, {}, hooks);

    std::printf("%s\n", transcript.text.c_str());
    return transcript.text.empty() ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
