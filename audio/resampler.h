#pragma once
#include <cstdint>
#include <vector>

#include "audio/ffmpeg.h"

namespace tessera::audio {

/// Turns decoded frames of any format, rate and channel layout into mono float at kSampleRate,
/// which are taken from it in order. A change of format on the way is followed: what the old one
/// still held comes first. Private to audio/.
class Resampler {
 public:
  static constexpr int kMaxChannels = 64;
  static constexpr int kMinRate = 1000;
  static constexpr int kMaxRate = 768000;
  /// Building a resampler can take far longer than reading the bytes that ask for it.
  static constexpr int kMaxChanges = 32;

  /// push() throws FormatError for more samples in all than `max_samples`, UnsupportedError for
  /// impossible formats.
  explicit Resampler(std::int64_t max_samples) : max_samples_(max_samples) {}

  void push(const AVFrame& frame);
  /// Ends the sound: appends what the resampler still holds.
  void finish();

  /// Samples made so far, taken or not.
  std::int64_t total() const { return gone_ + static_cast<std::int64_t>(samples_.size()); }
  /// Samples that can be taken.
  std::int64_t waiting() const { return total() - taken_; }
  /// Moves out the next n that wait.
  void take(float* to, std::int64_t n);

 private:
  void start(const AVFrame& frame, ffmpeg::SampleSpec spec);
  void convert(const AVFrame* frame);

  std::vector<float> samples_;  // from the gone_th on
  std::int64_t gone_ = 0, taken_ = 0;
  std::int64_t max_samples_;
  int changes_ = 0;
  ffmpeg::SampleSpec spec_;
  ffmpeg::Owned<SwrContext> swr_;
};

}  // namespace tessera::audio
