#include "core/quantize.h"

#include "core/kernels/convert.h"
#include "core/kernels/integer.h"
#include "core/kernels/quantized.h"

namespace tessera {
namespace {

using kernels::kGroup;

/// Row i as floats.
void read_row(const std::string& name, const Tensor& weight, std::int64_t i, float* row) {
  const Tensor numbers = weight[i];
  convert_to_f32(numbers.raw(), numbers.dtype(), row, numbers.numel());
  kernels::check_finite(name, i, row, numbers.numel());
}

std::vector<NamedTensor> in_eight_bits(const std::string& name, const Tensor& weight) {
  const std::int64_t rows = weight.dim(0), columns = weight.dim(1);
  Tensor numbers = Tensor::empty({rows, columns}, DType::i8), scales = Tensor::empty({rows, 1});
  std::vector<float> row(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < rows; ++i) {
    read_row(name, weight, i, row.data());
    scales.data()[i] =
        kernels::quantize8(row.data(), columns, numbers.data<std::int8_t>() + i * columns);
  }
  return {{name, numbers}, {name + "_scale", scales}};
}

std::vector<NamedTensor> in_four_bits(const std::string& name, const Tensor& weight) {
  const std::int64_t rows = weight.dim(0), columns = weight.dim(1), groups = columns / kGroup;
  Tensor packed = Tensor::zeros({rows, columns / 8}, DType::i32),
         scales = Tensor::empty({rows, groups}, DType::bf16),
         zeros = Tensor::zeros({(rows + 7) / 8, groups}, DType::i32),
         shape = Tensor::empty({2}, DType::i64);
  shape.data<std::int64_t>()[0] = rows;
  shape.data<std::int64_t>()[1] = columns;
  auto* words = reinterpret_cast<std::uint32_t*>(packed.data<std::int32_t>());
  auto* zero_words = reinterpret_cast<std::uint32_t*>(zeros.data<std::int32_t>());
  std::vector<float> row(static_cast<std::size_t>(columns));
  std::uint8_t q[kGroup];
  for (std::int64_t i = 0; i < rows; ++i) {
    read_row(name, weight, i, row.data());
    for (std::int64_t g = 0; g < groups; ++g) {
      const kernels::Nibbles n = kernels::quantize4(row.data() + g * kGroup, q);
      scales.data<std::uint16_t>()[i * groups + g] = f32_to_bf16(n.scale);
      zero_words[i / 8 * groups + g] |= std::uint32_t{n.zero} << (4 * (i % 8));
      for (std::int64_t c = 0; c < kGroup; ++c)
        words[(i * columns + g * kGroup + c) / 8] |= std::uint32_t{q[c]} << (4 * (c % 8));
    }
  }
  return {{name + "_packed", packed},
          {name + "_scale", scales},
          {name + "_zero_point", zeros},
          {name + "_shape", shape}};
}

}  // namespace

bool fits_four_bits(const Tensor& weight) { return weight.dim(1) % kGroup == 0; }

std::vector<NamedTensor> quantized(const std::string& name, const Tensor& weight, int bits) {
  return bits == 4 ? in_four_bits(name, weight) : in_eight_bits(name, weight);
}

}  // namespace tessera
