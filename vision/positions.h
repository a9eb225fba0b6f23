#pragma once
#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace tessera::vision {

/// A learned grid of positions [rows*columns, D] for another grid, [new_rows*new_columns, D]:
/// bicubic (a = -0.75, no antialiasing, borders repeated), as
/// torch.nn.functional.interpolate(mode="bicubic", align_corners=False).
/// Throws UnsupportedError where the grid is being trained: give images of its own size then.
Tensor resize_positions(Context& ctx, const Tensor& grid, std::int64_t rows, std::int64_t columns,
                        std::int64_t new_rows, std::int64_t new_columns);

}  // namespace tessera::vision
