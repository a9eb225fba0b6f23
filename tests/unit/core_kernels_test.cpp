#include <algorithm>
#include <cstring>
#include <string>

#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "unit/core_numbers.h"

namespace tessera::kernels {
namespace {

using tessera::testing::close;
using tessera::testing::Floats;
using tessera::testing::nearest_bf16;
using tessera::testing::random_numbers;

/// Memory with a guard behind it: a kernel that writes too far is found out.
class Guarded {
 public:
  explicit Guarded(std::int64_t count) : count_(static_cast<std::size_t>(count)) {
    memory_.assign(count_ + kGuard, kMark);
  }
  float* data() { return memory_.data(); }
  /// The numbers; fails the test if the guard was overwritten.
  Floats numbers() const {
    for (std::size_t i = count_; i < memory_.size(); ++i)
      EXPECT_EQ(memory_[i], kMark) << i - count_ << " numbers behind the end";
    return {memory_.begin(), memory_.begin() + static_cast<std::ptrdiff_t>(count_)};
  }

 private:
  static constexpr float kMark = 12345.678f;
  static constexpr std::size_t kGuard = 64;
  std::size_t count_;
  Floats memory_;
};

using Halves = std::vector<std::uint16_t>;
Halves halves(const Floats& x) {
  Halves to;
  for (const float number : x) to.push_back(f32_to_bf16(number));
  return to;
}

class VectorKernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = vector_kernels(GetParam());
    if (!kernels_) GTEST_SKIP() << "this machine or build has no " << GetParam();
  }
  const VectorKernels* kernels_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Isa, VectorKernelsTest,
                         ::testing::Values("generic", "avx2", "avx_vnni", "avx512", "avx512_vnni",
                                           "avx512_bf16"),
                         [](const auto& isa) { return std::string(isa.param); });

constexpr std::int64_t kWidths[] = {1, 3, 4, 7, 8, 16, 17, 31, 32, 33, 97, 192, 384, 1009};

TEST_P(VectorKernelsTest, HasItsName) { EXPECT_STREQ(kernels_->name, GetParam()); }

TEST_P(VectorKernelsTest, LayerNorm) {
  for (const std::int64_t width : kWidths) {
    Floats x = random_numbers(width, 1);
    for (float& v : x) v = 3.0f * v + 2.0f;
    const Floats weight = random_numbers(width, 2), bias = random_numbers(width, 3);
    Floats expected(x.size());
    Guarded y(width);
    for (const float eps : {1e-5f, 1e-12f}) {
      if (width == 1 && eps < 1e-6f) continue;  // the variance is rounding error
      reference::layer_norm(x.data(), weight.data(), bias.data(), eps, width, expected.data());
      kernels_->layer_norm(x.data(), weight.data(), bias.data(), eps, width, y.data());
      EXPECT_TRUE(close(y.numbers(), expected, 4e-6)) << "width " << width;
    }
  }
}

TEST_P(VectorKernelsTest, LayerNormOfNumbersFarFromZero) {
  Floats x = random_numbers(192, 1);
  for (float& v : x) v += 1000.0f;
  const Floats weight(192, 1.0f), bias(192, 0.0f);
  Floats expected(x.size()), y(x.size());
  reference::layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, 192, expected.data());
  kernels_->layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, 192, y.data());
  EXPECT_TRUE(close(y, expected, 5e-4));
}

TEST_P(VectorKernelsTest, RmsNorm) {
  for (const std::int64_t width : kWidths) {
    const Floats x = random_numbers(width, 1), weight = random_numbers(width, 2);
    Floats expected(x.size());
    Guarded y(width);
    reference::rms_norm(x.data(), weight.data(), 1e-6f, width, expected.data());
    kernels_->rms_norm(x.data(), weight.data(), 1e-6f, width, y.data());
    EXPECT_TRUE(close(y.numbers(), expected, 2e-6)) << "width " << width;
  }
}

TEST_P(VectorKernelsTest, Add) {
  for (const std::int64_t n : kWidths) {
    const Floats a = random_numbers(n, 1), b = random_numbers(n, 2);
    Floats expected(a.size());
    std::transform(a.begin(), a.end(), b.begin(), expected.begin(), std::plus<>());
    Guarded y(n);
    kernels_->add(a.data(), b.data(), n, y.data());
    EXPECT_EQ(y.numbers(), expected);
  }
}

TEST_P(VectorKernelsTest, Multiply) {
  for (const std::int64_t n : kWidths) {
    const Floats a = random_numbers(n, 1), b = random_numbers(n, 2);
    Floats expected(a.size());
    std::transform(a.begin(), a.end(), b.begin(), expected.begin(), std::multiplies<>());
    Guarded y(n);
    kernels_->multiply(a.data(), b.data(), n, y.data());
    EXPECT_EQ(y.numbers(), expected);
  }
}

TEST_P(VectorKernelsTest, SumOfExponentials) {
  for (const std::int64_t n : {1, 3, 17, 511, 513, 1031, 51864}) {
    Floats x = random_numbers(n, 1);
    for (float& v : x) v = 8.0f * v - 8.0f;
    x.back() = -std::numeric_limits<float>::infinity();
    double expected = 0;
    for (const float v : x) expected += std::exp(static_cast<double>(v));
    EXPECT_EQ(kernels_->largest(x.data(), n), *std::max_element(x.begin(), x.end())) << n;
    EXPECT_NEAR(kernels_->sum_exp(x.data(), n, 0.0f), expected, 1e-6 * expected) << n << " numbers";
  }
}

TEST_P(VectorKernelsTest, Rotate) {
  for (const std::int64_t half : kWidths) {
    const Floats x = random_numbers(2 * half, 1), angle = random_numbers(half, 2);
    Floats cos(angle.size()), sin(angle.size()), expected(x.size());
    for (std::size_t i = 0; i < angle.size(); ++i) {
      cos[i] = std::cos(7.0f * angle[i]);
      sin[i] = std::sin(7.0f * angle[i]);
    }
    reference::rotate(x.data(), cos.data(), sin.data(), half, expected.data());
    Guarded y(2 * half);
    kernels_->rotate(x.data(), cos.data(), sin.data(), half, y.data());
    EXPECT_TRUE(close(y.numbers(), expected, 2e-7)) << half << " pairs";
  }
}

TEST_P(VectorKernelsTest, FewRowsTimesWeights) {
  constexpr std::int64_t kColumns = 64;
  for (const std::int64_t k : kWidths) {
    for (std::int64_t m = 1; m <= kFewRows; ++m) {
      const std::int64_t ldx = k + 3;
      const Floats x = random_numbers(m * ldx, 1), weight = random_numbers(kColumns * k, 2);
      Floats panel(weight.size()), rows, expected(static_cast<std::size_t>(m * kColumns));
      for (std::int64_t i = 0; i < kColumns * k; ++i)
        panel[static_cast<std::size_t>(i % k * kColumns + i / k)] =
            weight[static_cast<std::size_t>(i)];
      for (std::int64_t r = 0; r < m; ++r)
        rows.insert(rows.end(), x.begin() + r * ldx, x.begin() + r * ldx + k);
      reference::linear(rows.data(), weight.data(), nullptr, nullptr, Activation::none, m, kColumns,
                        k, expected.data());
      Guarded by_panel(m * kColumns);
      kernels_->few_rows_panel(x.data(), ldx, m, panel.data(), k, by_panel.data());
      EXPECT_TRUE(close(by_panel.numbers(), expected, 2e-5)) << m << " rows of " << k;
      for (const std::int64_t n : {std::int64_t{1}, std::int64_t{17}, kColumns}) {
        reference::linear(rows.data(), weight.data(), nullptr, nullptr, Activation::none, m, n, k,
                          expected.data());
        Guarded by_dot(m * n);
        kernels_->few_rows_dot(x.data(), ldx, m, {weight.data()}, n, k, by_dot.data());
        expected.resize(static_cast<std::size_t>(m * n));
        EXPECT_TRUE(close(by_dot.numbers(), expected, 2e-5)) << m << " rows of " << k;
        // Weights that lie as bf16 are the same numbers, but for the order of the last sums.
        const Floats near = nearest_bf16(weight);
        const Halves half = halves(weight);
        kernels_->few_rows_dot(x.data(), ldx, m, {near.data()}, n, k, by_dot.data());
        const Floats wanted = by_dot.numbers();
        kernels_->few_rows_dot(x.data(), ldx, m, {nullptr, half.data()}, n, k, by_dot.data());
        EXPECT_TRUE(close(by_dot.numbers(), wanted, 1e-6)) << m << " rows of " << k;
        expected.resize(static_cast<std::size_t>(m * kColumns));
      }
    }
  }
}

/// In bf16: what attention gives is checked below; here, that nothing is written beyond the end.
TEST_P(VectorKernelsTest, PacksRoundedHeadsWithinTheirRoom) {
  const auto whole = [](std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; };
  for (const std::int64_t width : {1, 3, 17, 64}) {
    for (const std::int64_t count : {std::int64_t{1}, kernels_->panel - 1, kernels_->panel + 1}) {
      const Floats k = random_numbers(count * width, 1);
      Guarded keys(whole(count, kernels_->panel) * whole(width, 2) / 2),
          values(whole(count, 2) * whole(width, kernels_->panel) / 2);
      kernels_->rounded.pack_head({k.data(), k.data(), width, width, false}, 0, count, width,
                                  keys.data(), values.data(), nullptr);
      const Floats packed = keys.numbers(), packed_values = values.numbers();
      const auto first = [](const Floats& numbers) {
        std::uint16_t bits;
        std::memcpy(&bits, numbers.data(), sizeof bits);
        return bits;
      };
      EXPECT_EQ(first(packed), f32_to_bf16(k[0]));
      EXPECT_EQ(first(packed_values), f32_to_bf16(k[0]));
    }
  }
}

TEST_P(VectorKernelsTest, PacksHeads) {
  const std::int64_t panel = kernels_->panel;
  for (const std::int64_t width : {1, 3, 17, 48, 64}) {
    for (const std::int64_t count : {std::int64_t{1}, panel - 1, panel, panel + 1, 3 * panel + 5}) {
      const std::int64_t stride = width + 3, padded_count = (count + panel - 1) / panel * panel;
      const std::int64_t padded = (width + panel - 1) / panel * panel;
      const Floats k = random_numbers(count * stride, 1), v = random_numbers(count * stride, 2);
      Guarded keys(padded_count * width), values(count * padded);
      const KeyValueRows rows{k.data(), v.data(), stride, stride, false};
      kernels_->exact.pack_head(rows, 0, std::min(count, panel), width, keys.data(), values.data(),
                                nullptr);
      if (count > panel) {
        kernels_->exact.pack_head(rows, panel, count, width, keys.data(), values.data(), nullptr);
      }
      Floats expected_keys(static_cast<std::size_t>(padded_count * width), 0.0f);
      Floats expected_values(static_cast<std::size_t>(count * padded), 0.0f);
      for (std::int64_t j = 0; j < count; ++j) {
        for (std::int64_t c = 0; c < width; ++c) {
          expected_keys[static_cast<std::size_t>((j / panel * width + c) * panel + j % panel)] =
              k[static_cast<std::size_t>(j * stride + c)];
          expected_values[static_cast<std::size_t>(j * padded + c)] =
              v[static_cast<std::size_t>(j * stride + c)];
        }
      }
      EXPECT_EQ(keys.numbers(), expected_keys) << "width " << width << ", keys " << count;
      EXPECT_EQ(values.numbers(), expected_values) << "width " << width << ", keys " << count;
    }
  }
}

/// One head through attention_block, all queries block by block.
Floats blocked_attention(const VectorKernels& kernels, const AttentionKernels& own, const Floats& q,
                         const KeyValueRows& rows, std::int64_t queries, std::int64_t keys,
                         std::int64_t width, float scale, bool causal,
                         const Dropout& dropped = {}) {
  const auto block = dropped.least > 0 ? own.dropping_block : own.block;
  const auto padded = [&](std::int64_t n) {
    return (n + kernels.panel - 1) / kernels.panel * kernels.panel;
  };
  // room for even numbers of rows and columns, which is what bf16 needs half of; or for fours of
  // bytes
  Guarded packed_keys(padded(keys) * (width + 1)), packed_values((keys + 1) * padded(width)),
      units(attention_units(keys, width));
  if (own.measure_head) own.measure_head(rows, keys, width, units.data());
  own.pack_head(rows, 0, keys, width, packed_keys.data(), packed_values.data(), units.data());
  Guarded out(queries * width), scratch(attention_scratch(width));
  for (std::int64_t i = 0; i < queries; i += kQueryBlock) {
    Dropout from_here = dropped;
    from_here.stream += static_cast<std::uint64_t>(i * keys);
    block({.q = q.data() + i * width,
           .ldq = width,
           .rows = std::min(kQueryBlock, queries - i),
           .first = keys - queries + i + 1,
           .causal = causal,
           .keys = keys,
           .width = width,
           .scale = scale,
           .head = {packed_keys.data(), packed_values.data(), units.data()},
           .out = out.data() + i * width,
           .ldo = width,
           .scratch = scratch.data(),
           .dropped = from_here});
  }
  scratch.numbers();
  return out.numbers();
}

/// The same through attention_part, all keys in one.
Floats single_attention(const VectorKernels& kernels, const Floats& q, const KeyValueRows& rows,
                        std::int64_t queries, std::int64_t keys, std::int64_t width, float scale,
                        bool causal) {
  Floats out;
  for (std::int64_t i = 0; i < queries; ++i) {
    Guarded sums(width), scratch(keys), best(1), total(1);
    kernels.attention_part({.q = q.data() + i * width,
                            .ldq = width,
                            .queries = 1,
                            .heads = 1,
                            .kv_heads = 1,
                            .width = width,
                            .scale = scale,
                            .rows = rows,
                            .keys = causal ? keys - queries + i + 1 : keys,
                            .scores = scratch.data(),
                            .best = best.data(),
                            .total = total.data(),
                            .out = sums.data()});
    scratch.numbers(), best.numbers();
    for (const float x : sums.numbers()) out.push_back(x / total.numbers().front());
  }
  return out;
}

struct AttentionCase {
  std::int64_t queries, keys, width;
  float scale;
};

void check_attention(const VectorKernels& kernels, const AttentionCase& c, bool causal) {
  const Floats q = random_numbers(c.queries * c.width, 1), k = random_numbers(c.keys * c.width, 2),
               v = random_numbers(c.keys * c.width, 3);
  Floats expected(q.size());
  reference::attention(q.data(), k.data(), v.data(), c.queries, c.keys, 1, 1, c.width, c.scale,
                       causal, expected.data());
  // The scores' rounding grows with their size; the exponential makes it a relative error.
  const double tolerance = 3e-6 * std::max(1.0, static_cast<double>(c.scale) * std::sqrt(c.width));
  const auto says = [&] {
    return "queries " + std::to_string(c.queries) + ", keys " + std::to_string(c.keys) +
           ", width " + std::to_string(c.width) + (causal ? ", causal" : "");
  };
  const KeyValueRows rows{k.data(), v.data(), c.width, c.width, false};
  const auto blocked = [&](const AttentionKernels& own, const KeyValueRows& of) {
    return blocked_attention(kernels, own, q, of, c.queries, c.keys, c.width, c.scale, causal);
  };
  const auto single = [&](const KeyValueRows& of) {
    return single_attention(kernels, q, of, c.queries, c.keys, c.width, c.scale, causal);
  };
  EXPECT_TRUE(close(blocked(kernels.exact, rows), expected, tolerance)) << says();
  EXPECT_TRUE(close(single(rows), expected, tolerance)) << says();
  // In bf16: of the rounded numbers, and with rounded weights (half a unit in the last of 8 bits).
  const Floats near_k = nearest_bf16(k), near_v = nearest_bf16(v);
  Floats scaled = q;
  for (float& number : scaled) number *= c.scale;
  reference::attention(nearest_bf16(scaled).data(), near_k.data(), near_v.data(), c.queries, c.keys,
                       1, 1, c.width, 1.0f, causal, expected.data());
  EXPECT_TRUE(close(blocked(kernels.rounded, rows), expected, 0.00196 + tolerance)) << says();
  // Keys and values that lie as bf16 are the same numbers.
  const Halves half_k = halves(k), half_v = halves(v);
  const KeyValueRows near{near_k.data(), near_v.data(), c.width, c.width, false},
      half{half_k.data(), half_v.data(), c.width, c.width, true};
  EXPECT_EQ(blocked(kernels.exact, half), blocked(kernels.exact, near)) << says();
  EXPECT_EQ(blocked(kernels.rounded, half), blocked(kernels.rounded, rows)) << says();
  if (kernels.half.native && c.width % 32 == 0) {  // queries and weights are rounded, too
    EXPECT_TRUE(close(single(half), single(near), 0.004 + tolerance)) << says();
  } else {
    EXPECT_EQ(single(half), single(near)) << says();
  }
}

TEST_P(VectorKernelsTest, Attention) {
  for (const std::int64_t width : {1, 3, 17, 48, 64, 128}) {
    for (const std::int64_t keys : {1, 3, 17, 31, 64, 256, 257, 513}) {
      for (const std::int64_t queries : {1, 5, 48, 49, 97}) {
        const float scale = 1.0f / std::sqrt(static_cast<float>(width));
        check_attention(*kernels_, {queries, keys, width, scale}, false);
        if (keys >= queries) check_attention(*kernels_, {queries, keys, width, scale}, true);
      }
    }
  }
  check_attention(*kernels_, {7, 1500, 64, 0.125f}, false);
}

/// What attention in integers rounds to.
struct Rounding {
  AttentionKernels VectorKernels::*kernels;
  double most, parts;
  /// Of what is rounded alike but for numbers between two integers, of what it stands for, of a
  /// value that is chosen.
  double alike, near, one;
};
constexpr Rounding kRoundings[] = {
    {&VectorKernels::shorts, 2047, 4095, 0.0015, 0.0015, 0.0005},
    {&VectorKernels::bytes, 127, 255, 0.008, 0.025, 0.005},
};

/// One head in integers, within the room that it is said to need.
Floats attention_in_integers(const VectorKernels& kernels, const Rounding& rounding,
                             const Floats& q, const Floats& k, const Floats& v,
                             std::int64_t queries, std::int64_t keys, std::int64_t width,
                             float scale) {
  return blocked_attention(kernels, kernels.*rounding.kernels, q,
                           {k.data(), v.data(), width, width, false}, queries, keys, width, scale,
                           false);
}

TEST_P(VectorKernelsTest, AttentionInIntegers) {
  for (const std::int64_t width : {1, 3, 17, 48, 64, 80, 256}) {
    for (const std::int64_t keys : {1, 3, 17, 31, 64, 70, 97, 256, 257, 513}) {
      const std::int64_t queries = keys % 100;
      const float scale = 2.0f / std::sqrt(static_cast<float>(width));
      const Floats q = random_numbers(queries * width, 1), v = random_numbers(keys * width, 3);
      Floats k = random_numbers(keys * width, 2), exact(q.size()), rounded(q.size());
      for (float& x : k) x += 2.0f;  // what all keys have in common costs nothing
      reference::attention(q.data(), k.data(), v.data(), queries, keys, 1, 1, width, scale, false,
                           exact.data());
      for (const Rounding& r : kRoundings) {
        reference::attention_in_integers(q.data(), k.data(), v.data(), queries, keys, width, scale,
                                         r.most, r.parts, rounded.data());
        const Floats found =
            attention_in_integers(*kernels_, r, q, k, v, queries, keys, width, scale);
        EXPECT_TRUE(close(found, rounded, r.alike))
            << keys << " keys of " << width << ", " << r.most;
        EXPECT_TRUE(close(found, exact, r.near)) << keys << " keys of " << width << ", " << r.most;
      }
    }
  }
}

/// Scores so far apart that 16 bits hold them only in coarse steps.
TEST_P(VectorKernelsTest, AttentionInIntegersOfLargeScores) {
  const std::int64_t queries = 40, keys = 300, width = 64;
  const Floats q = random_numbers(queries * width, 1), k = random_numbers(keys * width, 2),
               v = random_numbers(keys * width, 3);
  Floats rounded(q.size());
  for (const float scale : {0.5f, 2.0f, 8.0f, 64.0f}) {
    for (const Rounding& r : kRoundings) {
      reference::attention_in_integers(q.data(), k.data(), v.data(), queries, keys, width, scale,
                                       r.most, r.parts, rounded.data());
      const Floats found =
          attention_in_integers(*kernels_, r, q, k, v, queries, keys, width, scale);
      EXPECT_TRUE(close(found, rounded, 0.02)) << scale << ", " << r.most;
    }
  }
}

TEST_P(VectorKernelsTest, CausalAttentionInIntegers) {
  for (const std::int64_t width : {3, 64, 80}) {
    for (const auto& [queries, keys] :
         {std::pair{1, 1}, {31, 31}, {97, 300}, {300, 300}, {513, 513}, {17, 1030}}) {
      const float scale = 2.0f / std::sqrt(static_cast<float>(width));
      const Floats q = random_numbers(queries * width, 1), v = random_numbers(keys * width, 3);
      Floats k = random_numbers(keys * width, 2), expected(q.size());
      for (float& x : k) x += 2.0f;
      reference::attention(q.data(), k.data(), v.data(), queries, keys, 1, 1, width, scale, true,
                           expected.data());
      const Floats near_k = nearest_bf16(k), near_v = nearest_bf16(v);
      const Halves half_k = halves(k), half_v = halves(v);
      for (const Rounding& r : kRoundings) {
        const auto of = [&, queries = queries, keys = keys](const KeyValueRows& rows) {
          return blocked_attention(*kernels_, kernels_->*r.kernels, q, rows, queries, keys, width,
                                   scale, true);
        };
        EXPECT_TRUE(close(of({k.data(), v.data(), width, width, false}), expected, r.near))
            << queries << " queries, " << keys << " keys of " << width << ", " << r.most;
        // Rows that lie as bf16 are the same numbers.
        EXPECT_EQ(of({half_k.data(), half_v.data(), width, width, true}),
                  of({near_k.data(), near_v.data(), width, width, false}));
      }
    }
  }
}

TEST_P(VectorKernelsTest, AttentionInIntegersOfUnusualNumbers) {
  const std::int64_t keys = 300, width = 8;
  const Floats zeros(static_cast<std::size_t>(keys * width), 0.0f),
      fives(static_cast<std::size_t>(keys * width), 5.0f),
      q(static_cast<std::size_t>(width), 50.0f), values = random_numbers(keys * width, 3);
  for (const Rounding& r : kRoundings) {
    Floats k = random_numbers(keys * width, 2), v = values;
    const auto of = [&](const Floats& query, const Floats& key, const Floats& value) {
      return attention_in_integers(*kernels_, r, query, key, value, 1, keys, width, 1.0f);
    };
    EXPECT_TRUE(close(of(q, k, fives), Floats(q.size(), 5.0f), 1e-6)) << "values that are the same";
    Floats mean(q.size());
    for (std::size_t i = 0; i < v.size(); ++i) mean[i % mean.size()] += v[i] / 300.0f;
    EXPECT_TRUE(close(of(Floats(q.size()), k, v), mean, 0.002)) << "queries of nothing";
    EXPECT_TRUE(close(of(q, fives, v), mean, 0.002)) << "keys that are the same";
    EXPECT_TRUE(close(of(q, k, zeros), Floats(q.size()), 0)) << "values of nothing";
    for (std::int64_t c = 0; c < width; ++c) k[static_cast<std::size_t>(123 * width + c)] = 50.0f;
    const Floats chosen(v.begin() + 123 * width, v.begin() + 124 * width);
    EXPECT_TRUE(close(of(q, k, v), chosen, r.one)) << "one key above all";
    // As in f32, nothing is known after a number that is none.
    const auto nan = std::numeric_limits<float>::quiet_NaN();
    Floats broken = q;
    broken[3] = nan;
    EXPECT_TRUE(std::isnan(of(broken, k, v)[0])) << "queries";
    broken = k;
    broken[40] = nan;
    EXPECT_TRUE(std::isnan(of(q, broken, v)[0])) << "keys";
    broken = v;
    broken[static_cast<std::size_t>(5 * width)] = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(std::isfinite(of(q, k, broken)[0])) << "values";
  }
}

/// About the largest sums there can be: all numbers of one size.
TEST_P(VectorKernelsTest, AttentionInIntegersOfLargeSums) {
  const std::int64_t keys = 256, width = kWidestIntegerHead;
  const Floats ones(static_cast<std::size_t>(width), 1.0f);
  Floats rows(static_cast<std::size_t>(keys * width), 1.0f);
  for (std::size_t i = 0; i < rows.size() / 2; ++i) rows[i] = -1.0f;
  for (const Rounding& r : kRoundings) {
    const auto of = [&](const Floats& q) {
      return attention_in_integers(*kernels_, r, q, rows, rows, 1, keys, width, 1.0f);
    };
    EXPECT_TRUE(close(of(ones), ones, r.one)) << r.most;
    Floats less = ones;
    for (float& x : less) x = -1.0f;
    EXPECT_TRUE(close(of(less), less, r.one)) << r.most;
  }
}

/// Weights just below what 8 bits hold beside the largest are many: they are taken for what they
/// are on average, not left out.
TEST_P(VectorKernelsTest, AttentionInIntegersToManySmallWeights) {
  const std::int64_t keys = 1500, width = 4;
  Floats q{1, 0, 0, 0}, k(static_cast<std::size_t>(keys * width)), v(k.size(), 1.0f), expected(4);
  k[0] = 6.4f;  // e^6.4 = 602
  for (std::size_t c = 0; c < 4; ++c) v[c] = -1.0f;
  reference::attention(q.data(), k.data(), v.data(), 1, keys, 1, 1, width, 1.0f, false,
                       expected.data());
  for (const Rounding& r : kRoundings) {
    const Floats found = attention_in_integers(*kernels_, r, q, k, v, 1, keys, width, 1.0f);
    EXPECT_TRUE(close(found, expected, 0.01)) << r.most;
  }
}

TEST_P(VectorKernelsTest, CoarseActivations) {
  constexpr std::int64_t kCount = 2001;
  Floats x(kCount), expected(kCount);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.01f * static_cast<float>(i) - 10.0f;
  x.front() = -1e6f, x.back() = 1e6f;
  for (const Activation activation : {Activation::gelu, Activation::gelu_tanh}) {
    for (std::size_t i = 0; i < x.size(); ++i) expected[i] = reference::activate(activation, x[i]);
    expected.front() = 0;
    Guarded y(kCount);
    kernels_->finish({.m = 1,
                      .n = kCount,
                      .sums = x.data(),
                      .lds = kCount,
                      .bias = nullptr,
                      .activation = activation,
                      .residual = nullptr,
                      .ldr = 0,
                      .y = y.data(),
                      .ldy = kCount,
                      .coarse = true});
    EXPECT_TRUE(close(y.numbers(), expected, 1.2e-4));
  }
}

TEST_P(VectorKernelsTest, AttentionWithDropout) {
  struct Size {
    std::int64_t queries, keys, width;
  };
  for (const auto& [queries, keys, width] :
       {Size{1, 1, 1}, {1, 3, 5}, {5, 17, 3}, {49, 61, 17}, {97, 257, 8}, {3, 513, 64}}) {
    const Floats q = random_numbers(queries * width, 1), k = random_numbers(keys * width, 2),
                 v = random_numbers(keys * width, 3);
    const KeyValueRows rows{k.data(), v.data(), width, width, false};
    for (const bool causal : {false, true}) {
      if (causal && keys < queries) continue;
      const Dropout dropped = dropout_of(11, 0.3f, 5);
      Floats expected(q.size());
      reference::attention(q.data(), k.data(), v.data(), queries, keys, 1, 1, width, 0.7f, causal,
                           expected.data(), dropped);
      const auto blocked = [&, queries = queries, keys = keys,
                            width = width](const AttentionKernels& own) {
        return blocked_attention(*kernels_, own, q, rows, queries, keys, width, 0.7f, causal,
                                 dropped);
      };
      EXPECT_TRUE(close(blocked(kernels_->exact), expected, 1e-5)) << keys << " keys";
      EXPECT_TRUE(close(blocked(kernels_->rounded), expected, 0.02)) << keys << " keys";
    }
  }
}

TEST_P(VectorKernelsTest, AttentionWithVeryUnequalScores) {
  for (const bool causal : {false, true}) check_attention(*kernels_, {60, 600, 17, 40.0f}, causal);
}

TEST_P(VectorKernelsTest, AttentionWithHugeScores) {
  // Scores of thousands: only differences from the largest one matter.
  const std::int64_t keys = 300, width = 8;
  Floats q(static_cast<std::size_t>(width), 50.0f), k = random_numbers(keys * width, 2),
                                                    v = random_numbers(keys * width, 3);
  for (std::int64_t c = 0; c < width; ++c) k[static_cast<std::size_t>(123 * width + c)] = 50.0f;
  const Floats expected(v.begin() + 123 * width, v.begin() + 124 * width);
  const KeyValueRows rows{k.data(), v.data(), width, width, false};
  EXPECT_TRUE(
      close(blocked_attention(*kernels_, kernels_->exact, q, rows, 1, keys, width, 1.0f, false),
            expected, 1e-6));
  EXPECT_EQ(blocked_attention(*kernels_, kernels_->rounded, q, rows, 1, keys, width, 1.0f, false),
            nearest_bf16(expected));
  EXPECT_TRUE(
      close(single_attention(*kernels_, q, rows, 1, keys, width, 1.0f, false), expected, 1e-6));
}

TEST(VectorKernels, KnowsNoOtherNames) {
  EXPECT_EQ(vector_kernels("sse9"), nullptr);
  EXPECT_EQ(vector_kernels(vector_kernels().name), &vector_kernels());
}

}  // namespace
}  // namespace tessera::kernels
