#include "core/kernels/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/kernels/vector.h"
#include "unit/core_numbers.h"

namespace tessera::kernels {
namespace {

using testing::random_tensor;

/// [rows, columns] as it lies, or as what lies transposed there, with rows a little apart.
struct Stored {
  Tensor memory;
  MatrixView view;
  float at(std::int64_t i, std::int64_t j) const {
    return view.turned ? view.data[j * view.stride + i] : view.data[i * view.stride + j];
  }
};

Stored stored(std::int64_t rows, std::int64_t columns, bool turned, std::uint32_t seed,
              bool bf16 = false) {
  const std::int64_t high = turned ? columns : rows, wide = (turned ? rows : columns) + 3;
  Tensor memory = random_tensor({high, wide}, seed);
  if (bf16) memory = Tensor::from(testing::nearest_bf16(memory.to_vector()), memory.shape());
  return {memory, {memory.data(), wide, turned}};
}

TEST(Product, IsTheSumOfProducts) {
  Context ctx({.threads = 2});
  struct Size {
    std::int64_t m, n, k;
  };
  for (const auto& [m, n, k] : {Size{1, 1, 1},
                                {6, 16, 3},
                                {97, 33, 17},
                                {7, 150, 300},
                                {200, 31, 513},
                                {13, 17, 1024},
                                {5, 7, 3100},
                                {2, 4099, 3},
                                {3, 5, 0}}) {
    for (int variant = 0; variant < 16; ++variant) {
      const bool more = variant & 4,
                 rounded = variant & 8;  // of numbers that rounding leaves alone
      const Stored a = stored(m, k, variant & 1, 1, rounded),
                   b = stored(k, n, variant & 2, 2, rounded);
      const Tensor bias = random_tensor({n}, 3), initial = random_tensor({m, n + 2}, 4);
      Tensor c = random_tensor({m, n + 1}, 5);
      const testing::Floats before = c.to_vector();
      product(ctx, {.m = m,
                    .n = n,
                    .k = k,
                    .a = a.view,
                    .b = b.view,
                    .bias = more ? bias.data() : nullptr,
                    .initial = more ? initial.data() : nullptr,
                    .ld_initial = n + 2,
                    .c = c.data(),
                    .ldc = n + 1,
                    .rounded = rounded});
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = more ? bias.data()[j] + initial.data()[i * (n + 2) + j] : 0.0;
          for (std::int64_t x = 0; x < k; ++x)
            sum += static_cast<double>(a.at(i, x)) * static_cast<double>(b.at(x, j));
          ASSERT_NEAR(c.data()[i * (n + 1) + j], sum, 1e-5 * (1 + std::sqrt(double(k))))
              << m << " x " << n << " x " << k << ", variant " << variant << ", " << i << ", " << j;
        }
        ASSERT_EQ(c.data()[i * (n + 1) + n], before[static_cast<std::size_t>(i * (n + 1) + n)])
            << "written beyond the columns";
      }
    }
  }
}

TEST(Product, RoundsItsFactorsToBf16) {
  if (!vector_kernels().half.native) GTEST_SKIP() << "this machine multiplies no bf16 numbers";
  Context ctx({.threads = 2});
  for (int variant = 0; variant < 4; ++variant) {
    const Stored a = stored(30, 75, variant & 1, 1), b = stored(75, 70, variant & 2, 2);
    Tensor c = Tensor::zeros({30, 70});
    product(ctx, {.m = 30,
                  .n = 70,
                  .k = 75,
                  .a = a.view,
                  .b = b.view,
                  .c = c.data(),
                  .ldc = 70,
                  .rounded = true});
    const auto near = [](float x) { return static_cast<double>(bf16_to_f32(f32_to_bf16(x))); };
    for (std::int64_t i = 0; i < 30; ++i) {
      for (std::int64_t j = 0; j < 70; ++j) {
        double sum = 0;
        for (std::int64_t x = 0; x < 75; ++x) sum += near(a.at(i, x)) * near(b.at(x, j));
        ASSERT_NEAR(c.data()[i * 70 + j], sum, 1e-5) << variant << ", " << i << ", " << j;
      }
    }
  }
}

TEST(Product, LargeResultsAreThoseOfSmallOnes) {
  Context ctx({.threads = 2});
  constexpr std::int64_t kRows = 1049, kColumns = 4016, kPart = 131;  // whole lines a row
  for (const bool rounded : {false, true}) {
    const Stored a = stored(kRows, 37, false, 1), b = stored(37, kColumns, true, 2);
    Tensor all = Tensor::zeros({kRows, kColumns}), part = Tensor::zeros({kPart, kColumns});
    ProductArguments p{.m = kRows,
                       .n = kColumns,
                       .k = 37,
                       .a = a.view,
                       .b = b.view,
                       .c = all.data(),
                       .ldc = kColumns,
                       .rounded = rounded};
    product(ctx, p);
    p.c = part.data();
    for (std::int64_t first = 0; first < kRows; first += kPart) {
      p.m = std::min(kPart, kRows - first);
      p.a.data = a.view.data + first * a.view.stride;
      product(ctx, p);
      ASSERT_EQ(std::memcmp(part.data(), all.data() + first * kColumns,
                            static_cast<std::size_t>(p.m * kColumns) * sizeof(float)),
                0)
          << "rows from " << first << ", rounded: " << rounded;
    }
  }
}

TEST(Product, AddsToItsOutput) {
  Context ctx({.threads = 2});
  const Stored a = stored(20, 600, false, 1), b = stored(600, 40, true, 2);
  Tensor once = Tensor::zeros({20, 40}), twice = Tensor::zeros({20, 40});
  ProductArguments p{
      .m = 20, .n = 40, .k = 600, .a = a.view, .b = b.view, .c = once.data(), .ldc = 40};
  product(ctx, p);
  p.initial = p.c = twice.data();
  p.ld_initial = 40;
  product(ctx, p);
  product(ctx, p);
  for (std::int64_t i = 0; i < 800; ++i)
    ASSERT_NEAR(twice.data()[i], 2 * once.data()[i], 1e-4f) << i;
}

}  // namespace
}  // namespace tessera::kernels
