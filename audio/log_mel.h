#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "core/config.h"
#include "core/context.h"
#include "core/tensor.h"

namespace tessera::audio {

/// Whisper's log-mel spectrogram, as the numpy path of HF's WhisperFeatureExtractor computes it (in
/// double precision): Hann window of n_fft, frames centred on multiples of hop, both ends mirrored,
/// power spectrum, Slaney mel filters, log10 of at least 1e-10, clamped to 8 below the maximum;
/// then 4 is added and the sum divided by 4. Const and shared.
class LogMel {
 public:
  /// Reads preprocessor_config.json (feature_size, hop_length, n_fft, chunk_length). Throws
  /// FormatError for sizes out of range, UnsupportedError for a sampling_rate other than 16000,
  /// dither or a padding_value.
  explicit LogMel(const Config& preprocessor_config = {});
  /// samples (16 kHz mono), padded with zeros or cut to chunk_length seconds -> [frames(), mels()],
  /// time first (HF's input_features transposed). The maximum is that of the window. Padding costs
  /// next to nothing.
  Tensor operator()(Context& ctx, std::span<const float> samples) const;
  /// The whole sound with nothing padded or cut, as HF's truncation=False, padding="longest":
  /// [samples / hop, mels] (rounded down). Frame f is centred on sample f * hop, and the end is
  /// mirrored where the last frames reach beyond it; the maximum is that of the whole sound, so a
  /// quiet stretch can differ from the same stretch in a window of its own. Throws ArgumentError
  /// for less than one hop.
  Tensor whole(Context& ctx, std::span<const float> samples) const;

  /// Part of a sound of `length` samples: those from `begin` on, with as many before and after the
  /// frames asked for as these reach to (n_fft / 2 on both sides, or the sound's end).
  struct Piece {
    std::span<const float> samples;
    std::int64_t begin, length;
  };
  /// Frames are transformed in groups of so many, which decides their last bits: parts that are to
  /// have the same as whole() begin and end with a group (or the sound).
  static constexpr std::int64_t kGroup = 8;
  /// The loudest log10 energy of frames [first, first + count) of a sound, and these frames ->
  /// [count, mels()], given the loudest of all. What whole() computes, in pieces.
  float loudest(Context& ctx, const Piece& piece, std::int64_t first, std::int64_t count) const;
  Tensor part(Context& ctx, const Piece& piece, std::int64_t first, std::int64_t count,
              float loudest) const;
  /// Frames of a whole sound of so many samples.
  std::int64_t frames_of(std::int64_t samples) const;

  std::int64_t mels() const;
  std::int64_t frames() const;              ///< of one window: 3000
  std::int64_t samples_per_window() const;  ///< 480000
  std::int64_t hop() const;                 ///< samples per frame: 160
  std::int64_t n_fft() const;               ///< samples that a frame hears: 400

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tessera::audio
