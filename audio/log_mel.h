#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "core/config.h"
#include "core/context.h"
#include "core/tensor.h"

namespace tessera::audio {

/// Whisper's log-mel spectrogram, as HF's WhisperFeatureExtractor: Hann window of n_fft, reflect padding, Slaney mel
/// filters, log10, clamped to 8 below the maximum, (x + 4) / 4.
class LogMel {
 public:
  /// Reads preprocessor_config.json (feature_size, sampling_rate, hop_length, n_fft, chunk_length).
  explicit LogMel(const Config& preprocessor_config = {});
  /// samples (16 kHz mono), padded with zeros or cut to chunk_length seconds -> [frames, mels], time first
  /// (HF's input_features transposed).
  Tensor operator()(Context& ctx, std::span<const float> samples) const;
  /// The whole sound without padding or cutting to a window: [samples/hop, mels] (long-form transcription).
  Tensor whole(Context& ctx, std::span<const float> samples) const;

  std::int64_t mels() const;
  std::int64_t frames() const;             ///< of one window: 3000
  std::int64_t samples_per_window() const; ///< 480000
  std::int64_t hop() const;                ///< samples per frame: 160

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tessera::audio
