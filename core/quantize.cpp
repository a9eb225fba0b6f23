#include "core/quantize.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/kernels/convert.h"
#include "core/kernels/integer.h"
#include "core/kernels/product.h"
#include "core/kernels/quantized.h"
#include "core/layers.h"

namespace tessera {
namespace {

using kernels::kGroup;

RoundedMatrix room_for(const Tensor& weight, int bits) {
  const std::int64_t rows = weight.dim(0), columns = weight.dim(1);
  if (bits == 8)
    return {8, Tensor::empty({rows, columns}, DType::i8), Tensor::empty({rows, 1}), {}};
  return {4, Tensor::empty({rows, columns}, DType::u8), Tensor::empty({rows, columns / kGroup}),
          Tensor::empty({rows, columns / kGroup}, DType::u8)};
}

/// As floats, all of them finite.
Tensor finite(const std::string& name, const Tensor& weight) {
  const Tensor numbers = weight.to_f32();
  const std::int64_t columns = numbers.dim(1);
  for (std::int64_t i = 0; i < numbers.dim(0); ++i)
    kernels::check_finite(name, i, numbers.data() + i * columns, columns);
  return numbers;
}

/// Rounds columns in Gptq's order, kBlock of them at a time: what all blocks before lost reaches a
/// block by one product; the rows of a block are then independent of each other.
class ColumnByColumn {
 public:
  ColumnByColumn(Context& ctx, const Tensor& weight, const Gptq& gptq, RoundedMatrix& out)
      : ctx_(ctx),
        weight_(weight),
        gptq_(gptq),
        out_(out),
        rows_(weight.dim(0)),
        columns_(weight.dim(1)),
        lost_(Tensor::empty({rows_, columns_})),
        wanted_(Tensor::empty({rows_, kBlock})) {}

  void run() {
    for (std::int64_t begin = 0; begin < columns_; begin += kBlock) {
      const std::int64_t count = std::min(kBlock, columns_ - begin);
      gather(begin, count);
      constexpr std::int64_t kRowsPerTask = 16;
      in_pieces(ctx_, rows_, kRowsPerTask, [&](std::int64_t first, std::int64_t end) {
        for (std::int64_t row = first; row < end; ++row) round(row, begin, count);
      });
    }
  }

 private:
  static constexpr std::int64_t kBlock = 128;
  static_assert(kBlock % kGroup == 0);

  /// wanted_ = the block's columns and what those before it lost.
  void gather(std::int64_t begin, std::int64_t count) {
    const auto order = gptq_.order().subspan(static_cast<std::size_t>(begin));
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t i = 0; i < count; ++i)
        wanted_.data()[row * kBlock + i] =
            weight_.data()[row * columns_ + order[static_cast<std::size_t>(i)]];
    }
    if (begin == 0) return;
    kernels::product(ctx_, {lost_.data(), columns_},
                     {gptq_.feedback().data() + begin * columns_, columns_, true}, begin, true,
                     wanted_.columns(0, count));
  }

  void round(std::int64_t row, std::int64_t begin, std::int64_t count) {
    float* wanted = wanted_.data() + row * kBlock;
    float group[kGroup];
    std::uint8_t unused[kGroup];
    kernels::Nibbles shared{};
    for (std::int64_t i = 0; i < count; ++i) {
      if (out_.bits == 4 && i % kGroup == 0) {
        for (std::int64_t c = 0; c < kGroup; ++c)
          group[c] = wanted[i + c] + made_up(row, begin, i + c, i);
        shared = kernels::quantize4(group, unused);
        const std::int64_t at = row * (columns_ / kGroup) + column(begin + i) / kGroup;
        out_.scales.data()[at] = shared.scale;
        out_.zeros.data<std::uint8_t>()[at] = shared.zero;
      }
      const float x = wanted[i] + made_up(row, begin, i, i);
      const float got = out_.bits == 4 ? nibble(row, begin + i, x, shared)
                                       : byte(row, begin + i, x, out_.scales.data()[row]);
      lost_.data()[row * columns_ + begin + i] =
          weight_.data()[row * columns_ + column(begin + i)] - got;
    }
  }

  /// What column begin + i takes on of the first `count` of the block.
  float made_up(std::int64_t row, std::int64_t begin, std::int64_t i, std::int64_t count) const {
    const float* lost = lost_.data() + row * columns_ + begin;
    const float* share = gptq_.feedback().data() + (begin + i) * columns_ + begin;
    float sum = 0;
    for (std::int64_t k = 0; k < count; ++k) sum += lost[k] * share[k];
    return sum;
  }

  std::int64_t column(std::int64_t i) const { return gptq_.order()[static_cast<std::size_t>(i)]; }

  float nibble(std::int64_t row, std::int64_t i, float x, const kernels::Nibbles& shared) {
    const auto zero = static_cast<float>(shared.zero);
    const float q =
        shared.scale > 0 ? std::clamp(std::nearbyint(x / shared.scale) + zero, 0.0f, 15.0f) : zero;
    out_.numbers.data<std::uint8_t>()[row * columns_ + column(i)] = static_cast<std::uint8_t>(q);
    return (q - zero) * shared.scale;
  }

  float byte(std::int64_t row, std::int64_t i, float x, float scale) {
    const float q = scale > 0 ? std::clamp(std::nearbyint(x / scale), -127.0f, 127.0f) : 0;
    out_.numbers.data<std::int8_t>()[row * columns_ + column(i)] = static_cast<std::int8_t>(q);
    return q * scale;
  }

  Context& ctx_;
  const Tensor& weight_;
  const Gptq& gptq_;
  RoundedMatrix& out_;
  std::int64_t rows_, columns_;
  Tensor lost_;    // [out, in] in Gptq's order: weight less what it was rounded to
  Tensor wanted_;  // [out, kBlock]
};

std::vector<NamedTensor> four_bit_form(const std::string& name, const RoundedMatrix& m) {
  const std::int64_t rows = m.numbers.dim(0), columns = m.numbers.dim(1), groups = columns / kGroup;
  Tensor packed = Tensor::zeros({rows, columns / 8}, DType::i32),
         scales = Tensor::empty({rows, groups}, DType::bf16),
         zeros = Tensor::zeros({(rows + 7) / 8, groups}, DType::i32),
         shape = Tensor::empty({2}, DType::i64);
  shape.data<std::int64_t>()[0] = rows;
  shape.data<std::int64_t>()[1] = columns;
  auto* words = reinterpret_cast<std::uint32_t*>(packed.data<std::int32_t>());
  auto* zero_words = reinterpret_cast<std::uint32_t*>(zeros.data<std::int32_t>());
  const auto* numbers = m.numbers.data<std::uint8_t>();
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t g = 0; g < groups; ++g) {
      scales.data<std::uint16_t>()[i * groups + g] = f32_to_bf16(m.scales.data()[i * groups + g]);
      zero_words[i / 8 * groups + g] |= std::uint32_t{m.zeros.data<std::uint8_t>()[i * groups + g]}
                                        << (4 * (i % 8));
    }
    for (std::int64_t c = 0; c < columns; ++c)
      words[(i * columns + c) / 8] |= std::uint32_t{numbers[i * columns + c]} << (4 * (c % 8));
  }
  return {{name + "_packed", packed},
          {name + "_scale", scales},
          {name + "_zero_point", zeros},
          {name + "_shape", shape}};
}

}  // namespace

Tensor RoundedMatrix::multiplied_out() const {
  Tensor out = numbers.to_f32();
  const std::int64_t columns = out.dim(1), group = columns / scales.dim(1);
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    const std::int64_t g = i / columns * scales.dim(1) + i % columns / group;
    const float zero = bits == 4 ? static_cast<float>(zeros.data<std::uint8_t>()[g]) : 0;
    out.data()[i] = (out.data()[i] - zero) * scales.data()[g];
  }
  return out;
}

std::int64_t columns_per_scale(int bits) { return bits == 4 ? kGroup : 0; }

RoundedMatrix rounded(const std::string& name, const Tensor& weight, int bits) {
  RoundedMatrix out = room_for(weight, bits);
  const Tensor numbers = finite(name, weight);
  const std::int64_t rows = weight.dim(0), columns = weight.dim(1), groups = columns / kGroup;
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = numbers.data() + i * columns;
    if (bits == 8) {
      out.scales.data()[i] =
          kernels::quantize8(row, columns, out.numbers.data<std::int8_t>() + i * columns);
      continue;
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      const kernels::Nibbles n = kernels::quantize4(
          row + g * kGroup, out.numbers.data<std::uint8_t>() + i * columns + g * kGroup);
      out.scales.data()[i * groups + g] = n.scale;
      out.zeros.data<std::uint8_t>()[i * groups + g] = n.zero;
    }
  }
  return out;
}

RoundedMatrix rounded(Context& ctx, const std::string& name, const Tensor& weight, int bits,
                      const Gptq& gptq) {
  if (gptq.columns() != weight.dim(1))
    throw ShapeError(concat(name, ": ", weight.dim(1), " columns, but inputs of ", gptq.columns()));
  RoundedMatrix out = bits == 8 ? rounded(name, weight, 8) : room_for(weight, bits);
  const Tensor numbers = finite(name, weight);
  ColumnByColumn(ctx, numbers, gptq, out).run();
  return out;
}

std::vector<NamedTensor> stored_form(const std::string& name, const RoundedMatrix& m,
                                     bool inputs_first) {
  if (m.bits == 4) return four_bit_form(name, m);
  if (inputs_first)
    return {{name, transposed(m.numbers)},
            {name + "_scale", m.scales.reshape({1, m.scales.numel()})}};
  return {{name, m.numbers}, {name + "_scale", m.scales}};
}

}  // namespace tessera
