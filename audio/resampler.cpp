#include "audio/resampler.h"

#include <algorithm>
#include <utility>

#include "audio/sound.h"
#include "core/error.h"

namespace tessera::audio {

void Resampler::push(const AVFrame& frame) {
  if (frame.nb_samples <= 0) return;
  ffmpeg::SampleSpec spec = ffmpeg::spec_of(frame);
  if (!swr_ || spec != spec_) start(frame, std::move(spec));
  const std::int64_t more = frame.nb_samples * kSampleRate / frame.sample_rate;
  if (total() + more > max_samples_) {
    throw FormatError(concat("the sound is longer than the ", max_samples_ / kSampleRate,
                             " s that are allowed for it"));
  }
  convert(&frame);
}

void Resampler::finish() {
  if (swr_) convert(nullptr);
  swr_.reset();
}

void Resampler::take(float* to, std::int64_t n) {
  const float* from = samples_.data() + (taken_ - gone_);
  std::copy(from, from + n, to);
  taken_ += n;
  // What was taken goes as soon as it is more than what waits.
  if (taken_ - gone_ > waiting()) {
    samples_.erase(samples_.begin(), samples_.begin() + (taken_ - gone_));
    gone_ = taken_;
  }
}

void Resampler::start(const AVFrame& frame, ffmpeg::SampleSpec spec) {
  finish();
  if (spec.rate < kMinRate || spec.rate > kMaxRate) {
    throw UnsupportedError(concat("a rate of ", spec.rate, " Hz; rates from ", kMinRate, " to ",
                                  kMaxRate, " Hz can be read"));
  }
  if (spec.channels < 1 || spec.channels > kMaxChannels) {
    throw UnsupportedError(concat(spec.channels, " channels; 1 to ", kMaxChannels, " can be read"));
  }
  if (++changes_ > kMaxChanges) {
    throw FormatError(
        concat("the format of the samples changes more than ", kMaxChanges, " times"));
  }
  swr_ = ffmpeg::make_resampler(frame, static_cast<int>(kSampleRate));
  if (!swr_) {
    throw UnsupportedError(concat(spec.channels, " channels at ", spec.rate, " Hz (layout '",
                                  spec.layout, "') can't be mixed to mono at ", kSampleRate,
                                  " Hz"));
  }
  spec_ = std::move(spec);
}

// One call takes all of a frame, since there is room for all that can come out; at the end (no
// frame) the resampler is asked until it gives nothing.
void Resampler::convert(const AVFrame* frame) {
  const int count = frame ? frame->nb_samples : 0;
  auto* in = frame ? const_cast<const std::uint8_t**>(frame->extended_data) : nullptr;
  while (true) {
    const std::size_t had = samples_.size();
    const int room = std::max(swr_get_out_samples(swr_.get(), count), 256);
    samples_.resize(had + static_cast<std::size_t>(room));
    auto* out = reinterpret_cast<std::uint8_t*>(samples_.data() + had);
    const int got = swr_convert(swr_.get(), &out, room, in, count);
    samples_.resize(had + static_cast<std::size_t>(std::max(got, 0)));
    if (got < 0) throw FormatError(concat("resampling failed: ", ffmpeg::error_text(got)));
    if (frame || got == 0) return;
  }
}

}  // namespace tessera::audio
