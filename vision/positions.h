#pragma once
#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::vision {

/// A learned grid of positions [rows*columns, D] for another grid, [new_rows*new_columns, D]:
/// bicubic (a = -0.75, no antialiasing, borders repeated), as
/// torch.nn.functional.interpolate(mode="bicubic", align_corners=False).
/// Throws UnsupportedError where the grid is being trained: give images of its own size then.
Tensor resize_positions(Context& ctx, const Tensor& grid, std::int64_t rows, std::int64_t columns,
                        std::int64_t new_rows, std::int64_t new_columns);

/// Learned positions of `extra` tokens and, behind them, of a square grid of patches.
class PositionTable {
 public:
  PositionTable() = default;
  /// The tensor of that name: [extra + side*side, D], with a rank of 3 [1, extra + side*side, D].
  /// Throws ShapeError for any other.
  PositionTable(const Weights& w, const char* name, int rank, std::int64_t extra,
                std::int64_t width);
  /// For a grid of high x wide patches: [extra + high*wide, D].
  Tensor operator()(Context& ctx, std::int64_t high, std::int64_t wide) const;

 private:
  Tensor table_;
  std::int64_t extra_ = 0, side_ = 0;
};

}  // namespace tessera::vision
