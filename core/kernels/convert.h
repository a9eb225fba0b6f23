#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace tessera {

/// n numbers of any type, contiguous -> float.
void convert_to_f32(const void* source, DType type, float* to, std::int64_t n);

}  // namespace tessera
