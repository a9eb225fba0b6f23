// Keys and values in 8 bits: how they are rounded, kept and attended to.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/kernels/quantized.h"
#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "unit/core_numbers.h"

namespace tessera::kernels {
namespace {

using tessera::testing::close;
using tessera::testing::Floats;
using tessera::testing::random_numbers;
using tessera::testing::random_tensor;
using tessera::testing::strided;

class ByteAttentionTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = vector_kernels(GetParam());
    if (!kernels_) GTEST_SKIP() << "this machine or build has no " << GetParam();
  }
  const ByteAttentionKernels& bytes() const { return kernels_->byte_attention; }
  const VectorKernels* kernels_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(Isa, ByteAttentionTest,
                         ::testing::Values("generic", "avx2", "avx_vnni", "avx512", "avx512_vnni",
                                           "avx512_bf16"),
                         [](const auto& isa) { return std::string(isa.param); });

/// Rows [count, width] rounded as quantize8() does.
Floats nearest_bytes(const Floats& x, std::int64_t width) {
  Floats rounded;
  std::vector<std::int8_t> q(static_cast<std::size_t>(width));
  for (auto row = x.begin(); row != x.end(); row += width) {
    const float scale = quantize8(&*row, width, q.data());
    for (const std::int8_t n : q) rounded.push_back(scale * static_cast<float>(n));
  }
  return rounded;
}

TEST_P(ByteAttentionTest, RowsComeBackAsTheNearestBytes) {
  for (const std::int64_t width : {1, 3, 4, 7, 16, 31, 33, 64, 80, 128}) {
    const Floats k = random_numbers(kByteKeys * width, 1), v = random_numbers(kByteKeys * width, 2);
    std::vector<std::uint8_t> block(static_cast<std::size_t>(bytes().bytes(width)) + 64, 77);
    for (std::int64_t j = 0, count = 1; j < kByteKeys; j += count, count = count % 7 + 1) {
      count = std::min(count, kByteKeys - j);  // whole fours and parts of them
      bytes().write(k.data() + j * width, width, v.data() + j * width, width, width, j, count,
                    block.data());
    }
    EXPECT_EQ(std::count(block.end() - 64, block.end(), 77), 64) << "written behind the end";
    Floats near_k(k.size()), near_v(v.size());
    for (std::int64_t j = 0; j < kByteKeys; ++j)
      bytes().read(block.data(), width, j, near_k.data() + j * width, near_v.data() + j * width);
    EXPECT_EQ(near_k, nearest_bytes(k, width)) << "width " << width;
    EXPECT_EQ(near_v, nearest_bytes(v, width)) << "width " << width;
  }
}

TEST_P(ByteAttentionTest, RowsOfZerosAndOfWhatIsNoNumberStaySo) {
  constexpr std::int64_t kWidth = 20;
  Floats zeros(kWidth), broken(kWidth, 1.0f), k(kWidth), v(kWidth);
  broken[17] = std::numeric_limits<float>::infinity();
  std::vector<std::uint8_t> block(static_cast<std::size_t>(bytes().bytes(kWidth)));
  bytes().write(zeros.data(), kWidth, broken.data(), kWidth, kWidth, 5, 1, block.data());
  bytes().read(block.data(), kWidth, 5, k.data(), v.data());
  EXPECT_EQ(k, zeros);
  for (const float x : v) EXPECT_TRUE(std::isnan(x));
  // Four rows at once, of which one is broken.
  Floats four(4 * kWidth, 2.0f);
  four[kWidth + 3] = four[kWidth + 19] = std::numeric_limits<float>::quiet_NaN();
  bytes().write(four.data(), kWidth, four.data(), kWidth, kWidth, 8, 4, block.data());
  for (std::int64_t i = 0; i < 4; ++i) {
    bytes().read(block.data(), kWidth, 8 + i, k.data(), v.data());
    for (const float x : v) EXPECT_EQ(std::isnan(x), i == 1) << "row " << i;
    for (const float x : k) EXPECT_EQ(std::isnan(x), i == 1) << "row " << i;
  }
}

struct PartCase {
  std::int64_t queries, keys, heads, kv_heads, width;
};

/// One block through attention_part(), beside the reference on the rounded numbers.
void check_part(const VectorKernels& kernels, const PartCase& c) {
  const ByteAttentionKernels& own = kernels.byte_attention;
  const std::int64_t wide = c.kv_heads * c.width, rows = c.queries * c.heads;
  const Floats q = random_numbers(rows * c.width, 3), k = random_numbers(c.keys * wide, 4),
               v = random_numbers(c.keys * wide, 5);
  const std::int64_t size = own.bytes(c.width);
  std::vector<std::uint8_t> blocks(static_cast<std::size_t>(c.kv_heads * size), 200);
  Floats near_k(k.size()), near_v(v.size());
  for (std::int64_t i = 0; i < c.keys * c.kv_heads; ++i) {
    std::uint8_t* block = blocks.data() + i % c.kv_heads * size;
    own.write(k.data() + i * c.width, c.width, v.data() + i * c.width, c.width, c.width,
              i / c.kv_heads, 1, block);
    own.read(block, c.width, i / c.kv_heads, near_k.data() + i * c.width,
             near_v.data() + i * c.width);
  }
  const float scale = 3.0f / std::sqrt(static_cast<float>(c.width));
  Floats expected(q.size()), out(q.size()), scores(static_cast<std::size_t>(rows * c.keys)),
      scratch(static_cast<std::size_t>(own.scratch(c.width)) + 16, 12.5f);
  Floats best(static_cast<std::size_t>(rows)), total(best.size());
  reference::attention(q.data(), near_k.data(), near_v.data(), c.queries, c.keys, c.heads,
                       c.kv_heads, c.width, scale, false, expected.data());
  kernels.attention_part({.q = q.data(),
                          .ldq = c.heads * c.width,
                          .queries = c.queries,
                          .heads = c.heads,
                          .kv_heads = c.kv_heads,
                          .width = c.width,
                          .scale = scale,
                          .bytes = blocks.data(),
                          .keys = c.keys,
                          .scores = scores.data(),
                          .best = best.data(),
                          .total = total.data(),
                          .out = out.data(),
                          .scratch = scratch.data()});
  EXPECT_EQ(std::count(scratch.end() - 16, scratch.end(), 12.5f), 16) << "written behind the end";
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] /= total[i / static_cast<std::size_t>(c.width)];
  // Queries and weights of 12 bits (with a sign) at least: half a unit of each number, at worst
  // all of one sign.
  const double tolerance = kernels.integer.depth == 4 ? 6e-4 : 4e-3;
  EXPECT_TRUE(close(out, expected, tolerance))
      << c.queries << " queries, " << c.keys << " keys, " << c.heads << " heads (" << c.kv_heads
      << ") of " << c.width;
}

TEST_P(ByteAttentionTest, EqualsTheReferenceOnTheRoundedNumbers) {
  for (const std::int64_t keys : {1, 2, 3, 17, 31, 32, 33, 101, 255, 256}) {
    check_part(*kernels_, {1, keys, 6, 6, 64});
    check_part(*kernels_, {5, keys, 2, 2, 64});
    check_part(*kernels_, {2, keys, 9, 3, 7});
  }
  for (const std::int64_t width : {1, 3, 4, 5, 16, 33, 48, 80, 128, 257})
    check_part(*kernels_, {8, 45, 4, 1, width});
}

}  // namespace
}  // namespace tessera::kernels

namespace tessera {
namespace {

using kernels::kByteKeys;
using testing::close;
using testing::random_tensor;
using testing::strided;

constexpr std::int64_t kHeads = 6, kKeyHeads = 3, kHeadWidth = 20, kWidth = kKeyHeads * kHeadWidth;

KvCache byte_cache() { return {2, {DType::i8, DType::i8, kKeyHeads}}; }

/// What attention says of all that a cache holds, and of the same as rows of f32.
void expect_attended(Context& ctx, const KeyValues& seen, std::int64_t queries, bool causal) {
  const Tensor q = random_tensor({queries, kHeads * kHeadWidth}, 7);
  Tensor out = ctx.empty(q.shape());
  const AttentionOptions options{.heads = kHeads, .kv_heads = kKeyHeads, .causal = causal};
  AttentionItem item{q, seen, out};
  attention(ctx, std::span(&item, 1), options);
  const KeyValues rows = seen.as_rows(ctx);
  ASSERT_EQ(rows.k.shape(), Shape({seen.length, kWidth}));
  const Tensor expected = attention(ctx, q, rows.k, rows.v, options);
  EXPECT_TRUE(close(out.to_vector(), expected.to_vector(), 2e-3))
      << queries << " queries, " << seen.length << " keys";
}

TEST(ByteCache, IsAttendedToAsItsRowsAre) {
  Context ctx({.threads = 2});
  KvCache cache = byte_cache();
  KeyValues seen;
  for (const std::int64_t more : {1, 2, 100, 152, 1, 1, 300, 1}) {
    const Tensor k = random_tensor({more, kWidth}, static_cast<std::uint32_t>(more)),
                 v = random_tensor({more, kWidth}, static_cast<std::uint32_t>(more) + 1);
    seen = cache.layer(1).append(strided(k), strided(v));
    for (const std::int64_t queries : {1, 3, 17})
      if (queries <= seen.length) expect_attended(ctx, seen, queries, true);
    expect_attended(ctx, seen, 8, false);
    // What was written last, with half a unit of rounding.
    const KeyValues rows = seen.as_rows(ctx);
    EXPECT_TRUE(close(rows.k.slice(seen.length - more, seen.length).to_vector(), k.to_vector(),
                      0.51 / 127));
    EXPECT_TRUE(close(rows.v.slice(seen.length - more, seen.length).to_vector(), v.to_vector(),
                      0.51 / 127));
  }
  EXPECT_EQ(cache.layer(1).length(), 558);
  EXPECT_GT(seen.bytes.dim(0), 2) << "several blocks";
}

TEST(ByteCache, ClonesGoOnByThemselves) {
  Context ctx({.threads = 1});
  KvCache cache(1, {DType::i8, DType::i8, kKeyHeads});
  const Tensor first = random_tensor({kByteKeys + 5, kWidth}, 1),
               more = random_tensor({3, kWidth}, 2), other = random_tensor({3, kWidth}, 3);
  cache.layer(0).append(first, first);
  KvCache copy = cache.clone();
  const KeyValues a = cache.layer(0).append(more, other);
  const KeyValues b = copy.layer(0).append(other, more);
  const KeyValues rows_a = a.as_rows(ctx), rows_b = b.as_rows(ctx);
  const auto part = [](const Tensor& t, std::int64_t from, std::int64_t to) {
    return t.slice(from, to).to_vector();
  };
  EXPECT_EQ(part(rows_a.k, 0, kByteKeys + 5), part(rows_b.k, 0, kByteKeys + 5));
  EXPECT_EQ(part(rows_a.k, kByteKeys + 5, kByteKeys + 8),
            part(rows_b.v, kByteKeys + 5, kByteKeys + 8));
  EXPECT_EQ(part(rows_a.v, kByteKeys + 5, kByteKeys + 8),
            part(rows_b.k, kByteKeys + 5, kByteKeys + 8));
  // What is forgotten is written anew.
  cache.truncate(kByteKeys - 1);
  const KeyValues again = cache.layer(0).append(other, other);
  EXPECT_EQ(again.length, kByteKeys + 2);
  EXPECT_EQ(part(again.as_rows(ctx).k, kByteKeys - 1, kByteKeys + 2),
            part(rows_b.k, kByteKeys + 5, kByteKeys + 8));
}

TEST(ByteCache, AMemoryIsRoundedOnceAndShared) {
  Context ctx({.threads = 2});
  KvCache cache = byte_cache();
  const Tensor k = random_tensor({700, kWidth}, 1), v = random_tensor({700, kWidth}, 2);
  EXPECT_FALSE(cache.layer(0).memory());
  cache.layer(0).set_memory(ctx, strided(k), strided(v));
  const KeyValues& memory = cache.layer(0).memory();
  for (const std::int64_t queries : {1, 5, 8, 20}) expect_attended(ctx, memory, queries, false);
  EXPECT_LT(memory.bytes_per_row(), 1.6 * 2 * kWidth);
  KvCache copy = cache.clone();
  EXPECT_TRUE(copy.layer(0).memory().same_as(memory));
  EXPECT_FALSE(copy.layer(1).memory());
}

TEST(ByteCache, WhatDoesNotFitIsAShapeError) {
  Context ctx({.threads = 1});
  KvCache cache = byte_cache();
  const Tensor rows = random_tensor({4, kWidth}, 1), q = random_tensor({1, 6 * kHeadWidth}, 2);
  Tensor out = ctx.empty(q.shape());
  AttentionItem item{q, cache.layer(0).append(rows, rows), out};
  EXPECT_THROW(attention(ctx, std::span(&item, 1), {.heads = 6, .kv_heads = 6}), ShapeError);
  EXPECT_THROW(attention(ctx, std::span(&item, 1), {.heads = 12, .kv_heads = 3}), ShapeError);
  item.seen = {};
  EXPECT_THROW(attention(ctx, std::span(&item, 1), {.heads = 6, .kv_heads = 3}), ShapeError);
}

}  // namespace
}  // namespace tessera
