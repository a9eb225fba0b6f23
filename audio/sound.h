#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace tessera::audio {

constexpr std::int64_t kSampleRate = 16000;

/// Mono samples at 16 kHz, nominally in [-1, 1] (float and lossy formats may go beyond); all are
/// finite.
struct Sound {
  std::vector<float> samples;
  /// What went wrong on the way ("damaged after 12.3 s ...; used what could be decoded"); empty:
  /// nothing. A cut-off file is noticed where its format states a length, a size or its end (wav,
  /// flac, mp3 with a Xing header, mp4, audio-only webm, ogg).
  std::string warning;
  double seconds() const { return static_cast<double>(samples.size()) / kSampleRate; }
};

struct SoundLimits {
  /// Longer sound is a FormatError, thrown while decoding before memory is taken for more. Apart
  /// from this, a file must have a byte for every 0.1 s beyond its first minute.
  double max_seconds = 24 * 3600;
};

/// Whether a file is called like a sound or a video that load_sound() may read (what it is shows in
/// its bytes).
bool is_sound_name(const std::filesystem::path& file);

/// Decodes the sound track of whatever FFmpeg reads (sound files and videos; the first track marked
/// as default, else the first), any rate and channel layout, to the samples that
/// `ffmpeg -i FILE -ac 1 -ar 16000 -f f32le` gives (two channels that are equal come out sqrt(2)
/// times as loud as one of them). What a file is shows in its bytes, not in its name. Nothing but
/// `file` itself is ever opened: no playlists, no protocols. A pipe or device is read to its end
/// first (at most 1 GiB).
/// Throws IoError (can't open or read), FormatError (no sound track, nothing decodable, zero
/// length, too long), UnsupportedError (playlists, codecs unknown to this FFmpeg, rates beyond 1 to
/// 768 kHz, over 64 channels). The first call silences FFmpeg's messages for the process
/// (av_log_set_level), unless the program has chosen a level.
Sound load_sound(const std::filesystem::path& file, const SoundLimits& limits = {});
/// The same from memory (standard input, embedded data); `name` stands for the file in messages.
Sound decode_sound(std::span<const std::uint8_t> bytes, const std::string& name,
                   const SoundLimits& limits = {});

/// Headerless interleaved samples; several channels are mixed as for files. Throws ArgumentError
/// (rates and channels out of range), FormatError (zero length).
enum class PcmFormat { s16le, f32le };
Sound from_pcm(std::span<const std::uint8_t> bytes, PcmFormat format, std::int64_t rate,
               std::int64_t channels);

}  // namespace tessera::audio
