#include "core/kernels/stored_matrix.h"

#include <algorithm>

#include "core/error.h"
#include "core/kernels/convert.h"

namespace tessera::kernels {

void StoredMatrix::nibbles(std::int64_t i, std::uint8_t* to) const {
  const auto* words = weight.data<std::int32_t>() + i * weight.dim(1);
  for (std::int64_t c = 0; c < columns; ++c)
    to[c] = static_cast<std::uint32_t>(words[c / 8]) >> (4 * (c % 8)) & 15u;
}

std::uint8_t StoredMatrix::zero(std::int64_t i, std::int64_t g) const {
  return zeros ? zeros.data<std::uint8_t>()[i * zeros.dim(1) + g] : std::uint8_t{8};
}

void StoredMatrix::row(std::int64_t i, float* to) const {
  const std::int64_t width = k(), step = group();
  const float* scale = scales ? scales.data() + i * scales.dim(1) : nullptr;
  if (bits == 4) {
    std::vector<std::uint8_t> q(static_cast<std::size_t>(width));
    nibbles(i, q.data());
    for (std::int64_t c = 0; c < width; ++c)
      to[c] =
          static_cast<float>(q[static_cast<std::size_t>(c)] - zero(i, c / step)) * scale[c / step];
    return;
  }
  const Tensor numbers = weight[i];
  if (numbers.is_contiguous()) {
    convert_to_f32(numbers.raw(), numbers.dtype(), to, width);
  } else {
    std::ranges::copy(numbers.to_vector(), to);
  }
  if (scale) std::for_each(to, to + width, [scale](float& x) { x *= *scale; });
}

std::int64_t StackedMatrix::n() const {
  std::int64_t total = 0;
  for (const StoredMatrix& part : parts) total += part.n();
  return total;
}

std::pair<const StoredMatrix*, std::int64_t> StackedMatrix::find(std::int64_t i) const {
  for (const StoredMatrix& part : parts) {
    if (i < part.n()) return {&part, i};
    i -= part.n();
  }
  throw ArgumentError(concat("row ", i, " behind the last of a weight matrix"));
}

void StackedMatrix::row(std::int64_t i, float* to) const {
  const auto [part, at] = find(i);
  part->row(at, to);
}

}  // namespace tessera::kernels
