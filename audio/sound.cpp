#include "audio/sound.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "audio/byte_source.h"
#include "audio/resampler.h"
#include "audio/track.h"
#include "core/error.h"

namespace tessera::audio {
namespace {

// No real recording is longer than this for its bytes (FLAC packs a second of silence into 160,
// Opus into 100), but a few hostile bytes can claim hours.
constexpr double kFreeSeconds = 60;
constexpr double kSecondsPerByte = 0.1;
// Encoders pad: sound this much shorter than its header says is complete.
constexpr double kLengthTolerance = 0.25;

std::int64_t allowed_samples(const SoundLimits& limits, std::int64_t bytes) {
  const double by_size = kFreeSeconds + kSecondsPerByte * static_cast<double>(bytes);
  const double allowed = std::min({limits.max_seconds, by_size, 1e9});
  return static_cast<std::int64_t>(std::max(allowed, 0.0) * kSampleRate);
}

void add_warning(Sound& sound, const std::string& text) {
  if (!sound.warning.empty() && !text.empty()) sound.warning += "; ";
  sound.warning += text;
}

// Float formats can hold what is no number; it would spread over everything computed from it.
void silence_non_numbers(Sound& sound) {
  std::int64_t count = 0;
  for (float& x : sound.samples) {
    if (std::isfinite(x)) continue;
    x = 0;
    ++count;
  }
  if (count > 0)
    add_warning(sound, concat(count, " samples are not finite numbers; taken as silence"));
}

// RIFF (wav, avi) and FORM (aiff) files state their size; where it is wrong, FFmpeg says nothing.
// 0: not stated.
std::int64_t stated_bytes(ByteSource& source) {
  std::array<std::uint8_t, 8> head{};
  if (source.read_at(0, head.data(), 8) != 8) return 0;
  const bool big_endian = std::memcmp(head.data(), "FORM", 4) == 0;
  if (!big_endian && std::memcmp(head.data(), "RIFF", 4) != 0) return 0;
  std::uint32_t size = 0;
  for (std::size_t i = 0; i < 4; ++i) size = size << 8 | head[big_endian ? 4 + i : 7 - i];
  return size < 0x7fff0000 ? size + std::int64_t{8}
                           : 0;  // programs that can't seek back write -1 or the like
}

// Whether the last page of an Ogg file is whole and marked as the end of its stream; FFmpeg does
// not say when it is missing. A page has 27 bytes, then lengths (their number is the last of the
// 27), then as much content.
bool ogg_has_end(ByteSource& source) {
  constexpr std::int64_t kHeader = 27, kLargestPage = kHeader + 255 + 255 * 255;
  std::vector<std::uint8_t> tail(
      static_cast<std::size_t>(std::min(source.size(), 2 * kLargestPage)));
  const auto size = static_cast<std::int64_t>(tail.size());
  if (source.read_at(source.size() - size, tail.data(), size) != size) return false;
  for (std::int64_t at = size - kHeader; at >= 0; --at) {
    const std::uint8_t* page = tail.data() + at;
    if (std::memcmp(page, "OggS\0", 5) != 0) continue;
    std::int64_t end = at + kHeader + page[26];
    if (end > size) return false;
    for (int i = 0; i < page[26]; ++i) end += page[kHeader + i];
    return end <= size && (page[5] & 4) != 0;
  }
  return false;
}

bool is_ogg(ByteSource& source) {
  std::array<std::uint8_t, 4> head{};
  return source.read_at(0, head.data(), 4) == 4 && std::memcmp(head.data(), "OggS", 4) == 0;
}

// Whether the file ended before what it holds did: says so, else an empty text.
std::string cut_short(ByteSource& source, const Track& track, double seconds) {
  if (seconds < track.declared_seconds() - kLengthTolerance) {
    return concat("the file states ", track.declared_seconds(), " s, but ends after ", seconds,
                  " s");
  }
  if (is_ogg(source) && !ogg_has_end(source))
    return concat("cut off: the Ogg stream's end is missing after ", seconds, " s");
  const std::int64_t stated = stated_bytes(source);
  if (stated <= source.size() + 16) return {};  // some writers count their header twice
  return concat("the file states ", stated, " bytes, but ends after ", source.size());
}

Sound decode(ByteSource& source, const SoundLimits& limits) {
  if (source.size() == 0) throw FormatError("the file is empty");
  ffmpeg::quiet();
  Track track(source);
  Resampler out(allowed_samples(limits, source.size()));
  track.decode(out);

  Sound sound;
  sound.samples = std::move(out.samples);
  sound.warning = track.problem();
  if (sound.samples.empty()) {
    const std::string reason = sound.warning.empty() ? "its length is zero" : sound.warning;
    throw FormatError("no sound could be decoded: " + reason);
  }
  add_warning(sound, cut_short(source, track, sound.seconds()));
  if (!sound.warning.empty()) sound.warning += "; used what could be decoded";
  silence_non_numbers(sound);
  return sound;
}

// The same, with the name of the sound in front of what is thrown.
Sound decode_named(ByteSource& source, const std::string& name, const SoundLimits& limits) {
  try {
    return decode(source, limits);
  } catch (const FormatError& e) {
    throw FormatError(concat(name, ": ", e.what()));
  } catch (const UnsupportedError& e) {
    throw UnsupportedError(concat(name, ": ", e.what()));
  }
}

}  // namespace

Sound load_sound(const std::filesystem::path& file, const SoundLimits& limits) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  if (std::filesystem::is_directory(status)) {
    throw IoError(concat(file.string(), ": is a directory; give a sound or video file"));
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return decode_sound(read_stream(file), file.string(), limits);
  }
  FileSource source(file);
  return decode_named(source, file.string(), limits);
}

Sound decode_sound(std::span<const std::uint8_t> bytes, const std::string& name,
                   const SoundLimits& limits) {
  MemorySource source(bytes);
  return decode_named(source, name, limits);
}

Sound from_pcm(std::span<const std::uint8_t> bytes, PcmFormat format, std::int64_t rate,
               std::int64_t channels) {
  static_assert(std::endian::native == std::endian::little,
                "samples are read as they lie in memory");
  if (rate < Resampler::kMinRate || rate > Resampler::kMaxRate) {
    throw ArgumentError(concat("PCM: a rate of ", rate, " Hz; expected ", Resampler::kMinRate,
                               " to ", Resampler::kMaxRate));
  }
  if (channels < 1 || channels > Resampler::kMaxChannels) {
    throw ArgumentError(
        concat("PCM: ", channels, " channels; expected 1 to ", Resampler::kMaxChannels));
  }
  const bool is_float = format == PcmFormat::f32le;
  const auto width = static_cast<std::size_t>(channels) * (is_float ? 4 : 2);  // bytes a frame
  if (bytes.size() < width) throw FormatError("PCM: no samples: its length is zero");

  ffmpeg::quiet();
  const ffmpeg::Owned<AVFrame> frame(av_frame_alloc());
  if (!frame) throw std::bad_alloc();
  frame->format = is_float ? AV_SAMPLE_FMT_FLT : AV_SAMPLE_FMT_S16;
  frame->sample_rate = static_cast<int>(rate);
  ffmpeg::set_channels(*frame, static_cast<int>(channels));

  constexpr std::size_t kBlock = 4096;  // frames at a time, copied to aligned memory
  std::vector<float> block(kBlock * width / sizeof(float) + 1);
  frame->data[0] = reinterpret_cast<std::uint8_t*>(block.data());
  Resampler out(INT64_MAX);
  const std::size_t frames = bytes.size() / width;
  for (std::size_t done = 0; done < frames; done += kBlock) {
    const std::size_t count = std::min(kBlock, frames - done);
    std::memcpy(block.data(), bytes.data() + done * width, count * width);
    frame->nb_samples = static_cast<int>(count);
    out.push(*frame);
  }
  out.finish();

  Sound sound;
  sound.samples = std::move(out.samples);
  if (const std::size_t rest = bytes.size() % width; rest != 0) {
    add_warning(sound, concat("PCM: ", rest, " bytes at the end are no whole sample; left out"));
  }
  silence_non_numbers(sound);
  return sound;
}

}  // namespace tessera::audio
