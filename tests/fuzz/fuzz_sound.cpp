#include <cstddef>
#include <cstdint>

#include "audio/sound.h"
#include "core/error.h"

// Any bytes: a sound or an Error, soon and within bounds.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tessera::audio::SoundLimits limits;
  limits.max_seconds = 5;
  try {
    const tessera::audio::Sound sound = tessera::audio::decode_sound({data, size}, "fuzz", limits);
    if (sound.samples.empty() || sound.seconds() > limits.max_seconds + 1) __builtin_trap();
  } catch (const tessera::Error&) {
  }
  return 0;
}
