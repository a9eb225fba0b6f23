#include "core/kernels/dropout.h"

#include <cmath>

namespace tessera::kernels {

Dropout dropout_of(std::uint64_t stream, float p, std::int64_t place) {
  const double least = std::ceil(std::ldexp(static_cast<double>(p), 53));
  return {stream + static_cast<std::uint64_t>(place), static_cast<std::uint64_t>(least),
          1.0f / (1.0f - p)};
}

}  // namespace tessera::kernels
