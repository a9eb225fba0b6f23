#include "audio/sound_stream.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "audio/byte_source.h"
#include "audio/resampler.h"
#include "audio/track.h"
#include "audio/truncation.h"
#include "core/error.h"

namespace tessera::audio {
namespace {

// No real recording is longer than this for its bytes (FLAC packs a second of silence into 160,
// Opus into 100), but a few hostile bytes can claim hours.
constexpr double kFreeSeconds = 60;
constexpr double kSecondsPerByte = 0.1;

std::int64_t allowed_samples(const SoundLimits& limits, std::int64_t bytes) {
  const double by_size = kFreeSeconds + kSecondsPerByte * static_cast<double>(bytes);
  const double allowed = std::min({limits.max_seconds, by_size, 1e9});
  return static_cast<std::int64_t>(std::max(allowed, 0.0) * kSampleRate);
}

/// What decoded files and headerless samples have in common: they come out of a resampler, piece by
/// piece, and messages begin with their name.
class ResampledStream : public SoundStream {
 public:
  ResampledStream(std::unique_ptr<ByteSource> source, const std::string& name)
      : source_(std::move(source)), prefix_(name.empty() ? "" : name + ": ") {}

  std::int64_t read(float* to, std::int64_t n) final {
    return named([&] {
      while (out_->waiting() < n && !ended_) {
        if (more()) continue;
        ended_ = true;
        if (out_->total() == 0) throw FormatError(nothing());
      }
      n = std::min(n, out_->waiting());
      out_->take(to, n);
      silence_non_numbers(to, n);
      return n;
    });
  }
  void rewind() final {
    named([&] {
      ended_ = false;
      not_finite_ = 0;
      start();
    });
  }
  std::string warning() const final {
    if (!ended_) return {};
    std::string text = problem();
    if (not_finite_ == 0) return text;
    if (!text.empty()) text += "; ";
    return text + concat(not_finite_, " samples are not finite numbers; taken as silence");
  }

 protected:
  /// Makes out_ and whatever fills it.
  virtual void start() = 0;
  /// Fills out_ further; false: that was the end.
  virtual bool more() = 0;
  /// What went wrong, known at the end, and what it means that there were no samples.
  virtual std::string problem() const = 0;
  virtual std::string nothing() const = 0;

  std::unique_ptr<ByteSource> source_;
  std::optional<Resampler> out_;

 private:
  // Float formats can hold what is no number; it would spread over everything computed from it.
  void silence_non_numbers(float* samples, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (std::isfinite(samples[i])) continue;
      samples[i] = 0;
      ++not_finite_;
    }
  }
  template <class Work>
  auto named(const Work& work) -> decltype(work()) {
    try {
      return work();
    } catch (const FormatError& e) {
      throw FormatError(concat(prefix_, e.what()));
    } catch (const UnsupportedError& e) {
      throw UnsupportedError(concat(prefix_, e.what()));
    }
  }

  std::string prefix_;  // of messages
  bool ended_ = false;
  std::int64_t not_finite_ = 0;
};

/// Whatever FFmpeg reads.
class DecodedStream final : public ResampledStream {
 public:
  DecodedStream(std::unique_ptr<ByteSource> source, const std::string& name,
                const SoundLimits& limits)
      : ResampledStream(std::move(source), name), limits_(limits) {
    rewind();
  }

 private:
  void start() override {
    if (source_->size() == 0) throw FormatError("the file is empty");
    ffmpeg::quiet();
    track_.reset();  // it reads the same source
    track_.emplace(*source_);
    out_.emplace(allowed_samples(limits_, source_->size()));
    cut_.clear();
  }
  bool more() override {
    if (track_->decode(*out_)) return true;
    const double seconds = static_cast<double>(out_->total()) / kSampleRate;
    cut_ = cut_short(*source_, track_->declared_seconds(), seconds);
    return false;
  }
  std::string problem() const override {
    std::string text = track_->problem();
    if (!text.empty() && !cut_.empty()) text += "; ";
    text += cut_;
    return text.empty() ? text : text + "; used what could be decoded";
  }
  std::string nothing() const override {
    const std::string reason = track_->problem();
    return "no sound could be decoded: " + (reason.empty() ? "its length is zero" : reason);
  }

  SoundLimits limits_;
  std::optional<Track> track_;
  std::string cut_;
};

/// Headerless interleaved samples.
class PcmStream final : public ResampledStream {
 public:
  PcmStream(std::unique_ptr<ByteSource> source, const std::string& name, PcmFormat format,
            std::int64_t rate, std::int64_t channels)
      : ResampledStream(std::move(source), name),
        frame_(av_frame_alloc()),
        width_(channels * (format == PcmFormat::f32le ? 4 : 2)) {
    if (!frame_) throw std::bad_alloc();
    frame_->format = format == PcmFormat::f32le ? AV_SAMPLE_FMT_FLT : AV_SAMPLE_FMT_S16;
    frame_->sample_rate = static_cast<int>(rate);
    ffmpeg::set_channels(*frame_, static_cast<int>(channels));
    block_.resize(static_cast<std::size_t>(kBlock * width_) / sizeof(float) + 1);
    frame_->data[0] = reinterpret_cast<std::uint8_t*>(block_.data());
    rewind();
  }

 private:
  static constexpr std::int64_t kBlock = 4096;  // frames at a time

  void start() override {
    ffmpeg::quiet();
    at_ = 0;
    out_.emplace(INT64_MAX);
  }
  bool more() override {
    const std::int64_t frames = std::min(kBlock, (source_->size() - at_) / width_);
    if (frames > 0) {
      const std::int64_t bytes = frames * width_;
      if (source_->read_at(at_, frame_->data[0], bytes) != bytes)
        throw FormatError("PCM: reading failed");
      at_ += bytes;
      frame_->nb_samples = static_cast<int>(frames);
      out_->push(*frame_);
      return true;
    }
    out_->finish();
    return false;
  }
  std::string problem() const override {
    const std::int64_t rest = source_->size() % width_;
    if (rest == 0) return {};
    return concat("PCM: ", rest, " bytes at the end are no whole sample; left out");
  }
  std::string nothing() const override { return "PCM: no samples: its length is zero"; }

  ffmpeg::Owned<AVFrame> frame_;
  std::int64_t width_;        // bytes of a frame
  std::vector<float> block_;  // aligned memory for frame_
  std::int64_t at_ = 0;
};

class SamplesStream final : public SoundStream {
 public:
  explicit SamplesStream(std::span<const float> samples) : samples_(samples) {}
  std::int64_t read(float* to, std::int64_t n) override {
    n = std::min(n, static_cast<std::int64_t>(samples_.size() - at_));
    std::copy_n(samples_.data() + at_, n, to);
    at_ += static_cast<std::size_t>(n);
    return n;
  }
  void rewind() override { at_ = 0; }

 private:
  std::span<const float> samples_;
  std::size_t at_ = 0;
};

std::unique_ptr<ByteSource> open_file(const std::filesystem::path& file) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(file, error);
  if (std::filesystem::is_directory(status)) {
    throw IoError(concat(file.string(), ": is a directory; give a sound or video file"));
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    return std::make_unique<MemorySource>(read_stream(file));
  return std::make_unique<FileSource>(file);
}

std::unique_ptr<SoundStream> make_pcm(std::unique_ptr<ByteSource> source, const std::string& name,
                                      PcmFormat format, std::int64_t rate, std::int64_t channels) {
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
  return std::make_unique<PcmStream>(std::move(source), name, format, rate, channels);
}

}  // namespace

std::unique_ptr<SoundStream> open_sound(const std::filesystem::path& file,
                                        const SoundLimits& limits) {
  return std::make_unique<DecodedStream>(open_file(file), file.string(), limits);
}

std::unique_ptr<SoundStream> open_sound(std::span<const std::uint8_t> bytes,
                                        const std::string& name, const SoundLimits& limits) {
  return std::make_unique<DecodedStream>(std::make_unique<MemorySource>(bytes), name, limits);
}

std::unique_ptr<SoundStream> open_pcm(const std::filesystem::path& file, PcmFormat format,
                                      std::int64_t rate, std::int64_t channels) {
  return make_pcm(open_file(file), file.string(), format, rate, channels);
}

std::unique_ptr<SoundStream> open_pcm(std::span<const std::uint8_t> bytes, const std::string& name,
                                      PcmFormat format, std::int64_t rate, std::int64_t channels) {
  return make_pcm(std::make_unique<MemorySource>(bytes), name, format, rate, channels);
}

std::unique_ptr<SoundStream> open_samples(std::span<const float> samples) {
  return std::make_unique<SamplesStream>(samples);
}

Sound read_all(SoundStream& stream) {
  constexpr std::int64_t kPiece = 1 << 16;
  Sound sound;
  std::int64_t got = kPiece;
  while (got == kPiece) {
    const std::size_t had = sound.samples.size();
    sound.samples.resize(had + kPiece);
    got = stream.read(sound.samples.data() + had, kPiece);
    sound.samples.resize(had + static_cast<std::size_t>(got));
  }
  sound.warning = stream.warning();
  return sound;
}

}  // namespace tessera::audio
