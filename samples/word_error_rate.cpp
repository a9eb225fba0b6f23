// Arguments: docs/media/speech.jsonl
// Transcribes recordings and counts how many words were misheard. A line of the list is
// {"audio": FILE, "text": WHAT IS SAID}.
#include <cstdio>
#include <exception>

#include "fusion/examples.h"
#include "fusion/transcribe.h"
#include "text/metrics.h"
#include "text/transcript_normalizer.h"

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    std::fprintf(stderr, "usage: word_error_rate LIST [CHECKPOINT]\n");
    return 2;
  }
  try {
    fusion::Session session(fusion::Model::open(argc > 2 ? argv[2] : fusion::default_model()));
    const text::EnglishNormalizer normalize;
    text::ErrorRate rate;
    for (const fusion::Example& example : fusion::read_examples(argv[1]).list) {
      const auto sound = audio::open_sound(example.audio);
      const std::string answer = fusion::transcribe(session, *sound).text;
      rate.add(text::split_words(normalize(example.texts.front())),
               text::split_words(normalize(answer)));
      std::printf("%s: %s\n", example.audio.c_str(), answer.c_str());
    }
    std::printf("word error rate %.2f %%\n", 100 * rate.rate());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
