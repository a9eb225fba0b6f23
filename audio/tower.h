#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/context.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::audio {

/// A spectrogram encoder: log-mel frames in, one row for each stretch of sound out. Const and
/// shared.
class AudioTower {
 public:
  virtual ~AudioTower() = default;
  virtual std::int64_t width() const = 0;  ///< D of a row
  virtual std::int64_t mels() const = 0;
  virtual std::int64_t frames() const = 0;  ///< of a full window, e.g. 3000
  /// log-mel [frames, mels] -> last hidden states [T, D] after the final norm.
  virtual Tensor encode(Context& ctx, const Tensor& log_mel) const = 0;
};

/// How a tower is found: by `model_type` of its config.
struct AudioFamily {
  std::vector<std::string> model_types;
  std::unique_ptr<AudioTower> (*load)(const Config& config, const Weights& weights);
};
std::vector<AudioFamily> families();
/// Throws UnsupportedError naming the known types.
std::unique_ptr<AudioTower> load_tower(const Config& config, const Weights& weights);

}  // namespace tessera::audio
