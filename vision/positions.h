#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace tessera::vision {

/// A learned grid of positions [rows*columns, D] for another grid, [new_rows*new_columns, D]:
/// bicubic (a = -0.75, no antialiasing, borders repeated), as
/// torch.nn.functional.interpolate(mode="bicubic", align_corners=False).
Tensor resize_positions(const Tensor& grid, std::int64_t rows, std::int64_t columns,
                        std::int64_t new_rows, std::int64_t new_columns);

}  // namespace tessera::vision
