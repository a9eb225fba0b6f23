#pragma once
#include <vector>

#include "core/layers.h"

namespace tessera {

/// Matrices that are multiplied as they lie (Precision::in_place), those of several parts side by
/// side.
struct InPlaceMatrix {
  struct Part {
    Tensor weight;              // [out, in], f32
    bool inputs_first = false;  // [in, out]
    Tensor bias;                // [out] or empty
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
