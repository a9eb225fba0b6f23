#pragma once
#include <cstdint>
#include <variant>

#include "core/config.h"
#include "core/layers.h"

namespace tessera::fusion {

/// How a tower's rows lie: first `extra` rows of their own (class tokens), then a grid in reading
/// order. A sound's rows are a grid of one row.
struct RowLayout {
  std::int64_t extra = 0, rows = 1, columns = 0;
};

/// Brings a tower's rows [R, W] into the decoder's token space [R', D]: drop class tokens -> reduce
/// -> norm -> project
/// -> positions, each of them optional.
class Projector {
 public:
  /// Does nothing to the rows.
  Projector() = default;
  /// Reads a `vision_projector` or `audio_projector` of the `tessera` family and its tensors.
  /// tower_width: W; decoder_width: D. Throws FormatError for unknown kinds, ShapeError for tensors
  /// of other shapes.
  Projector(const Config& config, const Weights& weights, std::int64_t tower_width,
            std::int64_t decoder_width);
  /// One linear layer (the `enc_to_dec_proj` of a vision-encoder-decoder).
  explicit Projector(Linear linear);

  Tensor operator()(Context& ctx, const Tensor& rows, const RowLayout& layout) const;

 private:
  struct AveragePool {
    std::int64_t factor;
  };
  struct PixelShuffle {
    std::int64_t factor;
  };
  struct Stack {
    std::int64_t factor;
  };
  struct Mlp {
    Linear first, second;
    Activation activation;
  };
  bool drop_extra_ = false;
  std::variant<std::monostate, AveragePool, PixelShuffle, Stack> reduce_;
  LayerNorm norm_;  // empty: none
  std::variant<std::monostate, Linear, Mlp> project_;
  Tensor positions_;  // [P, D]; empty: none

  Tensor reduced(Context& ctx, const Tensor& rows, const RowLayout& layout) const;
};

}  // namespace tessera::fusion
