#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "audio/sound.h"

namespace tessera::audio {

/// A sound read piece by piece, as often as asked for: its memory does not grow with its length.
/// Samples as in Sound. Not for several threads.
class SoundStream {
 public:
  virtual ~SoundStream() = default;
  /// The next n samples to `to`; returns how many there were, fewer only at the end. Throws as
  /// load_sound().
  virtual std::int64_t read(float* to, std::int64_t n) = 0;
  /// Back to the start.
  virtual void rewind() = 0;
  /// What went wrong on the way to the end, from when that was reached until rewind(); see
  /// Sound::warning.
  virtual std::string warning() const { return {}; }
};

/// The stream of a file (a pipe or device is read to its end first), of bytes in memory that
/// outlive it, of headerless samples, and of samples in memory that outlive it. Limits and errors
/// are those of load_sound(), decode_sound() and from_pcm(), and `name` stands for the file in
/// messages.
std::unique_ptr<SoundStream> open_sound(const std::filesystem::path& file,
                                        const SoundLimits& limits = {});
std::unique_ptr<SoundStream> open_sound(std::span<const std::uint8_t> bytes,
                                        const std::string& name, const SoundLimits& limits = {});
std::unique_ptr<SoundStream> open_pcm(const std::filesystem::path& file, PcmFormat format,
                                      std::int64_t rate, std::int64_t channels);
std::unique_ptr<SoundStream> open_pcm(std::span<const std::uint8_t> bytes, const std::string& name,
                                      PcmFormat format, std::int64_t rate, std::int64_t channels);
std::unique_ptr<SoundStream> open_samples(std::span<const float> samples);

/// All that is left of a stream.
Sound read_all(SoundStream& stream);

}  // namespace tessera::audio
