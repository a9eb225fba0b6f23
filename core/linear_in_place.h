#pragma once
#include <optional>
#include <vector>

#include "core/layers.h"

namespace tessera {

/// Matrices that are multiplied as they lie (Precision::in_place), those of several parts side by
/// side.
struct InPlaceMatrix {
  /// A low-rank addition (Hu et al. 2021): y += scale * dropout(x) A^T B^T.
  struct Lora {
    Tensor a, b;  // [rank, in], [out, rank]
    float scale = 1, dropout = 0;
    /// That of a layer: its `lora_A.weight`, `lora_B.weight`, `lora_scale` [1] and `lora_dropout`
    /// [1] (absent: 1 and 0); nothing where it has none.
    static std::optional<Lora> read(const Weights& layer, std::int64_t in, std::int64_t out);
  };
  struct Part {
    Tensor weight;              // [out, in], f32
    bool inputs_first = false;  // [in, out]
    Tensor bias;                // [out] or empty
    std::optional<Lora> lora = {};
    std::int64_t in() const { return weight.dim(inputs_first ? 0 : 1); }
    std::int64_t out() const { return weight.dim(inputs_first ? 1 : 0); }
  };
  std::vector<Part> parts;

  std::int64_t in() const { return parts.front().in(); }
  std::int64_t out() const;
  /// x [N, in], its rows may be strided -> [N, out]; what Linear promises.
  Tensor operator()(Context& ctx, const Tensor& x, const LinearOptions& options) const;
};

}  // namespace tessera
