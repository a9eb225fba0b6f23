#include "core/kernels/quantized.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "unit/core_numbers.h"

namespace tessera::kernels {
namespace {

using tessera::testing::close;
using tessera::testing::Floats;
using tessera::testing::nearest_bf16;
using tessera::testing::random_numbers;
using tessera::testing::random_tensor;
using tessera::testing::strided;

class IntegerKernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!vector_kernels(GetParam())) GTEST_SKIP() << "this machine or build has no " << GetParam();
    kernels_ = &vector_kernels(GetParam())->integer;
  }
  const IntegerKernels* kernels_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Isa, IntegerKernelsTest,
                         ::testing::Values("generic", "avx2", "avx_vnni", "avx512", "avx512_vnni",
                                           "avx512_bf16"),
                         [](const auto& isa) { return std::string(isa.param); });

/// What quantize_rows() writes of a row, whichever the size of its numbers, and what one unit is
/// worth.
struct QuantizedRow {
  std::vector<int> numbers;
  float unit;
};
QuantizedRow quantized(const IntegerKernels& kernels, const float* x, std::int64_t k,
                       std::int64_t padded, float limit) {
  constexpr int kMark = 99;
  const auto filled = [&](auto mark) {
    std::vector<decltype(mark)> q(static_cast<std::size_t>(padded + 8), mark);
    float unit = -1;
    kernels.quantize_rows({.m = 1,
                           .x = x,
                           .ldx = k,
                           .k = k,
                           .padded = padded,
                           .limit = limit,
                           .q = q.data(),
                           .ldq = padded,
                           .units = &unit});
    EXPECT_EQ(q[static_cast<std::size_t>(padded)], kMark) << "written behind the end";
    return QuantizedRow{{q.begin(), q.begin() + padded}, unit};
  };
  return kernels.depth == 4 ? filled(std::int8_t{kMark}) : filled(std::int16_t{kMark});
}
float largest_activation(const IntegerKernels& kernels) {
  return kernels.depth == 4 ? 127.0f : 2047.0f;
}

TEST_P(IntegerKernelsTest, QuantizesRows) {
  const float limit = largest_activation(*kernels_);
  for (const std::int64_t k : {1, 3, 7, 8, 16, 17, 97, 384}) {
    const std::int64_t padded = (k + 31) / 32 * 32;
    const Floats x = random_numbers(k, 5);
    const auto [q, unit] = quantized(*kernels_, x.data(), k, padded, limit);
    float most = 0;
    for (const float v : x) most = std::max(most, std::abs(v));
    EXPECT_FLOAT_EQ(unit, most / limit);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_LE(std::abs(q[i]), static_cast<int>(limit));
      EXPECT_NEAR(static_cast<float>(q[i]) * unit, x[i], unit * 0.501f) << k << ": " << i;
    }
    for (std::int64_t i = k; i < padded; ++i) EXPECT_EQ(q[static_cast<std::size_t>(i)], 0);
  }
}

TEST_P(IntegerKernelsTest, QuantizesRowsAfterTheirNorm) {
  const float limit = largest_activation(*kernels_);
  for (const std::int64_t k : {5, 97, 128, 384}) {
    for (std::int64_t m = 1; m <= kRowsRounded; ++m) {
      const std::int64_t ldx = k + 3, padded = (k + 3) / 4 * 4, ldq = padded + 4,
                         bytes = kernels_->depth == 4 ? 1 : 2;
      const Floats x = random_numbers(m * ldx, 1), weight = random_numbers(k, 2),
                   bias = random_numbers(k, 3);
      Floats normal(static_cast<std::size_t>(m * k)), units(static_cast<std::size_t>(m));
      std::vector<std::int8_t> q(static_cast<std::size_t>(m * ldq * bytes));
      kernels_->quantize_rows({.m = m,
                               .x = x.data(),
                               .ldx = ldx,
                               .k = k,
                               .padded = padded,
                               .limit = limit,
                               .q = q.data(),
                               .ldq = ldq,
                               .units = units.data(),
                               .weight = weight.data(),
                               .bias = bias.data(),
                               .eps = 1e-5f,
                               .normal = normal.data()});
      Floats expected(static_cast<std::size_t>(k));
      for (std::int64_t r = 0; r < m; ++r) {
        reference::layer_norm(x.data() + r * ldx, weight.data(), bias.data(), 1e-5f, k,
                              expected.data());
        const float unit = units[static_cast<std::size_t>(r)];
        for (std::int64_t i = 0; i < k; ++i) {
          const std::int64_t at = r * ldq + i;
          const int number = bytes == 1 ? q[static_cast<std::size_t>(at)]
                                        : reinterpret_cast<const std::int16_t*>(q.data())[at];
          EXPECT_NEAR(static_cast<float>(number) * unit, expected[static_cast<std::size_t>(i)],
                      unit * 0.51f)
              << k << ": " << r << ", " << i;
        }
      }
    }
  }
}

/// The same of quantize_fine().
QuantizedRow fine(const IntegerKernels& kernels, const float* x, std::int64_t k,
                  std::int64_t padded) {
  std::vector<std::int8_t> q(static_cast<std::size_t>(2 * padded + 8), 99);
  const float unit = kernels.quantize_fine(x, k, padded, 127.0f, q.data());
  EXPECT_EQ(q[static_cast<std::size_t>(2 * padded)], 99) << "written behind the end";
  QuantizedRow row{{}, unit};
  for (std::int64_t i = 0; i < padded; ++i) {
    row.numbers.push_back(q[static_cast<std::size_t>(i)] * (1 << kLowBits) +
                          q[static_cast<std::size_t>(padded + i)]);
  }
  return row;
}

TEST_P(IntegerKernelsTest, QuantizesRowsInTwoParts) {
  if (!kernels_->quantize_fine) GTEST_SKIP() << "rows have 12 bits and a sign throughout";
  for (const std::int64_t k : {1, 3, 16, 17, 97, 384}) {
    const Floats x = random_numbers(k, 5);
    const auto [q, unit] = fine(*kernels_, x.data(), k, (k + 31) / 32 * 32);
    for (std::size_t i = 0; i < q.size(); ++i) {
      EXPECT_LE(std::abs(q[i]), 127 << kLowBits);
      const float wanted = i < x.size() ? x[i] : 0.0f;
      EXPECT_NEAR(static_cast<float>(q[i]) * unit, wanted, unit * 0.501f) << k << ": " << i;
    }
  }
}

TEST_P(IntegerKernelsTest, RowsOfZerosAndOfNoNumbers) {
  for (const std::int64_t at : {std::int64_t{0}, std::int64_t{18}}) {  // in a vector, in the tail
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Floats x(19, 1.0f);
      x[static_cast<std::size_t>(at)] = bad;
      EXPECT_TRUE(std::isnan(quantized(*kernels_, x.data(), 19, 32, 127.0f).unit));
    }
  }
  const Floats zeros(19, 0.0f);
  const auto [q, unit] = quantized(*kernels_, zeros.data(), 19, 32, 127.0f);
  EXPECT_EQ(unit, 0.0f);
  EXPECT_TRUE(std::all_of(q.begin(), q.end(), [](int n) { return n == 0; }));
}

TEST_P(IntegerKernelsTest, SumsOfGroups) {
  std::vector<std::int8_t> bytes;
  std::vector<std::int16_t> words;
  std::vector<std::int32_t> expected(3, 0), sums(3);
  for (int i = 0; i < 96; ++i) {
    const int number = i * 37 % 255 - 127;
    bytes.push_back(static_cast<std::int8_t>(number));
    words.push_back(static_cast<std::int16_t>(number));
    expected[static_cast<std::size_t>(i / 32)] += number;
  }
  const void* q = kernels_->depth == 4 ? static_cast<const void*>(bytes.data()) : words.data();
  kernels_->sum_groups(q, 96, 32, sums.data());
  EXPECT_EQ(sums, expected);
}

/// What a product of quantised rows and weights is to give, from numbers rounded as it rounds them.
Floats expected_product(const Tensor& x, const Tensor& weight, int bits, std::int64_t group) {
  const std::int64_t m = x.dim(0), k = x.dim(1), n = weight.dim(0);
  Floats rounded(static_cast<std::size_t>(m * k)), values(static_cast<std::size_t>(n * k));
  for (std::int64_t r = 0; r < m; ++r) {
    const IntegerKernels& kernels = vector_kernels().integer;
    const auto [q, unit] =
        m <= 8 && kernels.quantize_fine
            ? fine(kernels, x.data() + r * x.stride(0), k, k)
            : quantized(kernels, x.data() + r * x.stride(0), k, k, largest_activation(kernels));
    for (std::int64_t i = 0; i < k; ++i) {
      rounded[static_cast<std::size_t>(r * k + i)] =
          static_cast<float>(q[static_cast<std::size_t>(i)]) * unit;
    }
  }
  for (std::int64_t j = 0; j < n; ++j) {
    const float* row = weight.data() + j * k;
    float* to = values.data() + j * k;
    if (bits == 8) {
      std::vector<std::int8_t> q(static_cast<std::size_t>(k));
      const float scale = quantize8(row, k, q.data());
      for (std::int64_t i = 0; i < k; ++i)
        to[i] = static_cast<float>(q[static_cast<std::size_t>(i)]) * scale;
      continue;
    }
    Floats padded(static_cast<std::size_t>((k + group - 1) / group * group));
    std::copy_n(row, k, padded.data());
    std::vector<std::uint8_t> q(static_cast<std::size_t>(group));
    for (std::int64_t g = 0; g < k; g += group) {
      const Nibbles nibbles = quantize4(padded.data() + g, q.data());
      for (std::int64_t i = g; i < std::min(k, g + group); ++i)
        to[i] =
            static_cast<float>(q[static_cast<std::size_t>(i - g)] - nibbles.zero) * nibbles.scale;
    }
  }
  Floats y(static_cast<std::size_t>(m * n));
  reference::linear(rounded.data(), values.data(), nullptr, nullptr, Activation::none, m, n, k,
                    y.data());
  return y;
}

struct Case {
  std::int64_t m, n, k;
};
constexpr Case kCases[] = {{1, 1, 1},    {1, 17, 33},   {2, 16, 32},  {3, 31, 97},
                           {4, 20, 96},  {5, 48, 64},   {6, 33, 64},  {8, 130, 40},
                           {9, 17, 384}, {13, 33, 100}, {61, 97, 31}, {197, 67, 192}};

TEST(Quantized, ProductsAreThoseOfTheRoundedNumbers) {
  Context ctx({.threads = 2, .log = {}});
  for (const int bits : {8, 4}) {
    for (const Case& c : kCases) {
      const Tensor x = random_tensor({c.m, c.k}, 1), weight = random_tensor({c.n, c.k}, 2);
      const Linear linear(weight, {}, bits == 8 ? Precision::int8 : Precision::int4);
      EXPECT_EQ(linear.in(), c.k);
      EXPECT_EQ(linear.out(), c.n);
      const Floats expected = expected_product(x, weight, bits, kGroup);
      for (const Tensor& rows : {x, strided(x)}) {
        EXPECT_TRUE(close(linear(ctx, rows).to_vector(), expected, 2e-5))
            << bits << " bits, " << c.m << " x " << c.n << " x " << c.k;
      }
    }
  }
}

// More numbers a row than are summed at a time.
TEST(Half, ProductsOfLongRows) {
  Context ctx({.threads = 2, .log = {}});
  constexpr std::int64_t kRows = 67, kColumns = 35, kLength = 4100;
  const Tensor x = random_tensor({kRows, kLength}, 1),
               weight = random_tensor({kColumns, kLength}, 2), bias = random_tensor({kColumns}, 3);
  const Floats zeros(kRows * kColumns);
  Floats expected(kRows * kColumns);
  for (const Tensor& b : {bias, Tensor()}) {
    reference::linear(nearest_bf16(x.to_vector()).data(), nearest_bf16(weight.to_vector()).data(),
                      b ? b.data() : zeros.data(), zeros.data(), Activation::none, kRows, kColumns,
                      kLength, expected.data());
    EXPECT_TRUE(close(Linear(weight, b, Precision::bf16)(ctx, x).to_vector(), expected, 4e-5));
  }
}

TEST(Half, ProductsAreThoseOfTheRoundedNumbers) {
  Context ctx({.threads = 2, .log = {}});
  for (const Case& c : kCases) {
    const Tensor x = random_tensor({c.m, c.k}, 1), weight = random_tensor({c.n, c.k}, 2),
                 bias = random_tensor({c.n}, 3), residual = random_tensor({c.m, c.n}, 4);
    Floats expected(static_cast<std::size_t>(c.m * c.n));
    reference::linear(nearest_bf16(x.to_vector()).data(), nearest_bf16(weight.to_vector()).data(),
                      bias.data(), residual.data(), Activation::gelu, c.m, c.n, c.k,
                      expected.data());
    const Linear linear(weight, bias, Precision::bf16);
    EXPECT_TRUE(linear.rounds());
    EXPECT_FALSE(linear.in_bytes());
    EXPECT_TRUE(Linear(weight, bias, Precision::int8).in_bytes());
    EXPECT_FALSE(Linear(weight, bias, Precision::f32).in_bytes());
    const LinearOptions options{.activation = Activation::gelu, .residual = residual};
    for (const Tensor& rows : {x, strided(x)}) {
      EXPECT_TRUE(close(linear(ctx, rows, options).to_vector(), expected, 2e-5))
          << c.m << " x " << c.n << " x " << c.k;
    }
  }
}

TEST(Half, WeightsStoredAsBf16AreTakenAsTheyAre) {
  Context ctx({.threads = 1, .log = {}});
  const Tensor weight = random_tensor({37, 65}, 2), x = random_tensor({3, 65}, 1);
  Tensor stored = Tensor::empty({37, 65}, DType::bf16);
  for (std::int64_t i = 0; i < weight.numel(); ++i)
    stored.data<std::uint16_t>()[i] = f32_to_bf16(weight.data()[i]);
  EXPECT_EQ(Linear(stored, {}, Precision::bf16)(ctx, x).to_vector(),
            Linear(weight, {}, Precision::bf16)(ctx, x).to_vector());
}

TEST(Half, NumbersThatAreNoneReachTheOutput) {
  Context ctx({.threads = 1, .log = {}});
  Tensor x = random_tensor({2, 40}, 1);
  x.data()[3] = std::numeric_limits<float>::quiet_NaN();
  const Floats y = Linear(random_tensor({5, 40}, 2), {}, Precision::bf16)(ctx, x).to_vector();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_TRUE(std::isnan(y[i]));
  for (std::size_t i = 5; i < 10; ++i) EXPECT_FALSE(std::isnan(y[i]));
}

TEST(Quantized, BiasActivationAndResidual) {
  Context ctx({.threads = 2, .log = {}});
  for (const std::int64_t m : {3, 29}) {
    const Tensor x = random_tensor({m, 64}, 1), weight = random_tensor({37, 64}, 2),
                 bias = random_tensor({37}, 3), residual = random_tensor({m, 37}, 4);
    const Floats sums = expected_product(x, weight, 8, kGroup);
    for (const Activation activation :
         {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh,
          Activation::quick_gelu, Activation::silu, Activation::sigmoid, Activation::tanh,
          Activation::mish}) {
      Floats expected = sums, alone = sums, plain = sums;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        alone[i] = reference::activate(activation, sums[i] + bias.data()[i % 37]);
        plain[i] = reference::activate(activation, sums[i]);
        expected[i] = alone[i] + residual.data()[i];
      }
      const Linear linear(weight, bias, Precision::int8), no_bias(weight, {}, Precision::int8);
      // Many rows of 7 bits take GELU to 1.2e-4 (Finish::coarse).
      const bool coarse = m > 8 && kernels::vector_kernels().integer.depth == 4 &&
                          (activation == Activation::gelu || activation == Activation::gelu_tanh);
      EXPECT_TRUE(close(
          linear(ctx, x, {.activation = activation, .residual = strided(residual)}).to_vector(),
          expected, 3e-5 + (coarse ? 1.2e-4 : 0)))
          << static_cast<int>(activation);
      for (const auto& [layer, wanted] : {std::pair{&linear, &alone}, {&no_bias, &plain}}) {
        EXPECT_TRUE(close((*layer)(ctx, x, {.activation = activation}).to_vector(), *wanted,
                          3e-5 + (coarse ? 1.2e-4 : 0)))
            << static_cast<int>(activation);
      }
    }
  }
}

/// A norm that is part of a product gives what it gives by itself, to the bit.
TEST(Quantized, NormsWhileItRounds) {
  Context ctx({.threads = 2, .log = {}});
  LayerNorm norm;
  norm.weight = random_tensor({70}, 5);
  norm.bias = random_tensor({70}, 6);
  for (const std::int64_t m : {3, 29}) {
    const Tensor x = random_tensor({m, 70}, 1), weight = random_tensor({37, 70}, 2),
                 bias = random_tensor({37}, 3);
    for (const Precision precision :
         {Precision::f32, Precision::bf16, Precision::int8, Precision::int4}) {
      const Linear linear(weight, bias, precision);
      const LinearOptions options{.norm = &norm, .activation = Activation::gelu};
      EXPECT_EQ(linear(ctx, x, options).to_vector(),
                linear(ctx, norm(ctx, x), {.activation = Activation::gelu}).to_vector());
      EXPECT_EQ(linear(ctx, strided(x), options).to_vector(), linear(ctx, x, options).to_vector());
    }
  }
  norm.weight = norm.bias = random_tensor({71}, 7);
  EXPECT_THROW(Linear(random_tensor({2, 70}, 1), {}, Precision::int8)(
                   ctx, random_tensor({9, 70}, 2), {.norm = &norm}),
               ShapeError);
}

/// Long rows of the largest numbers: the sums stay within 32 bits.
TEST(Quantized, LongRowsDoNotOverflow) {
  Context ctx({.threads = 1, .log = {}});
  const std::int64_t k = 16384;
  const Tensor x = Tensor::from(Floats(static_cast<std::size_t>(k), 3.0f), {1, k});
  const Tensor weight = Tensor::from(Floats(static_cast<std::size_t>(2 * k), -5.0f), {2, k});
  for (const Precision precision : {Precision::int8, Precision::int4}) {
    const Floats y = Linear(weight, {}, precision)(ctx, x).to_vector();
    for (const float v : y)
      EXPECT_NEAR(v, -15.0f * static_cast<float>(k), 0.01f * 15.0f * static_cast<float>(k));
  }
}

TEST(Quantized, SameBitsForAnyNumberOfThreads) {
  for (const Precision precision : {Precision::bf16, Precision::int8, Precision::int4}) {
    for (const Case& c : {Case{1, 515, 384}, Case{200, 515, 96}}) {
      const Tensor x = random_tensor({c.m, c.k}, 1), weight = random_tensor({c.n, c.k}, 2);
      std::vector<Floats> results;
      for (const int threads : {1, 2, 3}) {
        Context ctx({.threads = threads, .log = {}});
        results.push_back(Linear(weight, {}, precision)(ctx, x).to_vector());
      }
      EXPECT_EQ(results[0], results[1]);
      EXPECT_EQ(results[0], results[2]);
    }
  }
}

/// Weighted squared error of a group with this scale and zero point.
double error_of(const float* x, float scale, int zero) {
  double squares = 0, error = 0;
  for (std::int64_t i = 0; i < kGroup; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double mean = std::sqrt(squares / kGroup);
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const double v = x[i], level = std::clamp(std::rint(v / scale) + zero, 0.0, 15.0),
                 off = v - (level - zero) * scale;
    error += (std::abs(v) + mean) * off * off;
  }
  return error;
}

/// The least error of some hundred scales with every zero point.
double least_error(const float* x) {
  float size = 0;
  for (std::int64_t i = 0; i < kGroup; ++i) size = std::max(size, std::abs(x[i]));
  double least = -1;
  for (int step = 20; step <= 200; ++step) {
    for (int zero = 0; zero < 16; ++zero) {
      const double error = error_of(x, size * static_cast<float>(step) / 1500, zero);
      if (least < 0 || error < least) least = error;
    }
  }
  return least;
}

TEST_P(IntegerKernelsTest, FindsNibblesWithASmallError) {
  const Floats x = random_numbers(64 * kGroup, 11);
  std::uint8_t q[kGroup];
  double found = 0, least = 0;
  for (std::int64_t g = 0; g < 64; ++g) {
    Floats group(x.begin() + g * kGroup, x.begin() + (g + 1) * kGroup);
    for (float& v : group) v = v * v * v + static_cast<float>(g % 3) * 0.2f;  // few large ones
    const Nibbles n = kernels_->quantize4(group.data(), q);
    EXPECT_EQ(bf16_to_f32(f32_to_bf16(n.scale)), n.scale);
    EXPECT_LE(n.zero, 15);
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float level = std::rint(group[static_cast<std::size_t>(i)] / n.scale);
      EXPECT_NEAR(q[i], std::clamp(level + n.zero, 0.0f, 15.0f), 1) << "a tie may go either way";
    }
    found += error_of(group.data(), n.scale, n.zero);
    least += least_error(group.data());
  }
  EXPECT_LT(found, 1.1 * least);
}

TEST_P(IntegerKernelsTest, GroupsThatAreAlikeHaveTheirNumbers) {
  std::uint8_t q[kGroup];
  for (const float value : {0.0f, 0.75f, -0.75f, 1e30f}) {
    const Floats group(kGroup, value);
    const Nibbles n = kernels_->quantize4(group.data(), q);
    for (const std::uint8_t level : q) {
      EXPECT_LE(level, 15);
      EXPECT_NEAR(static_cast<float>(level - n.zero) * n.scale, value, std::abs(value) / 200);
    }
  }
}

TEST(Quantized, RoundingIsSmall) {
  const Floats x = random_numbers(1024, 7);
  std::vector<std::int8_t> bytes(x.size());
  const float scale = quantize8(x.data(), 1024, bytes.data());
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(static_cast<float>(bytes[i]) * scale, x[i], 0.5f / 127);
  double error = 0, size = 0;
  std::uint8_t nibbles[kGroup];
  for (std::int64_t g = 0; g < 1024; g += kGroup) {
    const Nibbles n = quantize4(x.data() + g, nibbles);
    EXPECT_EQ(bf16_to_f32(f32_to_bf16(n.scale)), n.scale);
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const float v = x[static_cast<std::size_t>(g + i)],
                  d = static_cast<float>(nibbles[i] - n.zero) * n.scale - v;
      error += static_cast<double>(d) * d;
      size += static_cast<double>(v) * v;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 0.07);
}

TEST(Quantized, NumbersThatAreNoneReachTheOutput) {
  Context ctx({.threads = 1, .log = {}});
  Tensor x = random_tensor({2, 40}, 1);
  x.data()[3] = std::numeric_limits<float>::quiet_NaN();
  const Floats y = Linear(random_tensor({5, 40}, 2), {}, Precision::int8)(ctx, x).to_vector();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_TRUE(std::isnan(y[i]));
  for (std::size_t i = 5; i < 10; ++i) EXPECT_FALSE(std::isnan(y[i]));
}

TEST(Quantized, WeightsThatAreNoNumbersAreRefused) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Tensor weight = random_tensor({5, 64}, 1);
    weight.data()[3 * 64 + 7] = bad;
    for (const Precision precision : {Precision::int8, Precision::int4}) {
      try {
        const Linear rounded(weight, {}, precision);
        FAIL() << "took " << bad;
      } catch (const FormatError& e) {
        EXPECT_NE(std::string(e.what()).find("row 3"), std::string::npos) << e.what();
      }
    }
    EXPECT_NO_THROW(Linear(weight, {}));
  }
}

}  // namespace
}  // namespace tessera::kernels
