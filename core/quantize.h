#pragma once
#include <string>
#include <vector>

#include "core/weights.h"

namespace tessera {

/// A matrix of floats, named "<layer>.weight", as compressed-tensors stores it with 8 bits
/// (`weight` I8, `weight_scale`) or 4 (`weight_packed`, `weight_scale`, `weight_zero_point`,
/// `weight_shape`; groups of 32 numbers, which must divide its columns): the numbers that Linear
/// would round it to. Throws FormatError for numbers that are not finite.
std::vector<NamedTensor> quantized(const std::string& name, const Tensor& weight, int bits);

/// Whether it can be had with 4 bits.
bool fits_four_bits(const Tensor& weight);

}  // namespace tessera
