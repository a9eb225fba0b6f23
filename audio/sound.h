#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace tessera::audio {

constexpr std::int64_t kSampleRate = 16000;

/// Mono samples in [-1, 1] at 16 kHz.
struct Sound {
  std::vector<float> samples;
  /// What went wrong on the way ("corrupt data after 12.3 s; used what was decoded"); empty: nothing.
  std::string warning;
  double seconds() const { return static_cast<double>(samples.size()) / kSampleRate; }
};

struct SoundLimits {
  double max_seconds = 24 * 3600;  ///< longer sound is an error before memory is taken for it
};

/// Decodes the first sound track of whatever FFmpeg reads (sound files and videos), any rate and channel layout.
/// Throws IoError (can't open), FormatError (no sound track, nothing decodable, zero length).
Sound load_sound(const std::filesystem::path& file, const SoundLimits& limits = {});
/// The same from memory (standard input, embedded data); `name` stands for the file in messages.
Sound decode_sound(std::span<const std::uint8_t> bytes, const std::string& name, const SoundLimits& limits = {});

/// Headerless samples.
enum class PcmFormat { s16le, f32le };
Sound from_pcm(std::span<const std::uint8_t> bytes, PcmFormat format, std::int64_t rate, std::int64_t channels);

}  // namespace tessera::audio
