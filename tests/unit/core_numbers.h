#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/tensor.h"

// Made-up numbers for the tests of the kernels, and their comparison.
namespace tessera::testing {

using Floats = std::vector<float>;

/// Numbers in [-1, 1), the same on every machine.
inline Floats random_numbers(std::int64_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  Floats values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(generator() >> 8) / 8388608.0f - 1.0f;
  return values;
}

inline Tensor random_tensor(const Shape& shape, std::uint32_t seed) {
  return Tensor::from(random_numbers(shape.numel(), seed), shape);
}

inline Floats nearest_bf16(Floats x) {
  for (float& v : x) v = bf16_to_f32(f32_to_bf16(v));
  return x;
}

/// The same numbers as columns of a wider tensor, so that rows are strided.
inline Tensor strided(const Tensor& t) {
  const std::int64_t width = t.dim(1);
  Tensor wide = random_tensor({t.dim(0), width + 5}, 99);
  for (std::int64_t i = 0; i < t.dim(0); ++i) {
    for (std::int64_t c = 0; c < width; ++c)
      wide.data()[i * (width + 5) + 2 + c] = t.data()[i * t.stride(0) + c];
  }
  return wide.columns(2, 2 + width);
}

/// Whether |actual - expected| <= tolerance * max(1, |expected|) everywhere; NaN never is.
inline ::testing::AssertionResult close(const Floats& actual, const Floats& expected,
                                        double tolerance) {
  if (actual.size() != expected.size())
    return ::testing::AssertionFailure() << actual.size() << " numbers, not " << expected.size();
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double wanted = expected[i], error = std::abs(actual[i] - wanted);
    if (!(error <= tolerance * std::max(1.0, std::abs(wanted)))) {
      return ::testing::AssertionFailure() << "[" << i << "] of " << actual.size() << ": "
                                           << actual[i] << ", expected " << wanted;
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace tessera::testing
