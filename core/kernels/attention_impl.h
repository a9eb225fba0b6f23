// Attention in blocks with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022); see
// vector.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

void pack_head(const float* k, std::int64_t ldk, const float* v, std::int64_t ldv,
               std::int64_t begin, std::int64_t end, std::int64_t width, float* keys,
               float* values) {
  const std::int64_t padded = (width + kPanel - 1) / kPanel * kPanel;
  for (std::int64_t first = begin; first < end; first += kPanel) {
    float* panel = keys + first * width;
    const std::int64_t count = end - first < kPanel ? end - first : kPanel;
    for (std::int64_t j = 0; j < kPanel; ++j) {
      const float* row = k + (first + j) * ldk;
      for (std::int64_t c = 0; c < width; ++c) panel[c * kPanel + j] = j < count ? row[c] : 0.0f;
    }
  }
  for (std::int64_t i = begin; i < end; ++i) {
    float* to = values + i * padded;
    for (std::int64_t c = 0; c < width; ++c) to[c] = v[i * ldv + c];
    for (std::int64_t c = width; c < padded; ++c) to[c] = 0.0f;
  }
}

/// c[kRows][kPanel] (row stride ldc) = or += a[kRows][depth] * b[depth][kPanel] (row stride ldb);
/// a's rows are `row_step` apart, its columns `step`.
template <bool kAccumulate>
TESSERA_INLINE void tile_product(const float* a, std::int64_t row_step, std::int64_t step,
                                 const float* b, std::int64_t ldb, std::int64_t depth, float* c,
                                 std::int64_t ldc) {
  Vec acc[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    acc[r][0] = kAccumulate ? load(c + r * ldc) : Vec{};
    acc[r][1] = kAccumulate ? load(c + r * ldc + kLanes) : Vec{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const Vec b0 = load(b + k * ldb), b1 = load(b + k * ldb + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec x = splat(a[r * row_step + k * step]);
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    store(c + r * ldc, acc[r][0]);
    store(c + r * ldc + kLanes, acc[r][1]);
  }
}

struct Scratch {
  float* q;       // [kQueryBlock, width], scaled
  float* scores;  // [kQueryBlock, kKeyBlock]
  float* out;     // [kQueryBlock, padded width]
  float* best;    // [kQueryBlock] running maximum
  float* total;   // [kQueryBlock] running sum of exponentials
};

/// One row of scores -> exponentials against the running maximum; returns the factor for what was
/// summed before.
TESSERA_INLINE float softmax_row(float* scores, std::int64_t padded_count, float& best,
                                 float& total) {
  Vec high = splat(best);
  for (std::int64_t j = 0; j < padded_count; j += kLanes) high = larger(high, load(scores + j));
  const float now = max_of(high);
  const float factor = now == best ? 1.0f : exp_negative(splat(best - now))[0];
  Vec sums{};
  for (std::int64_t j = 0; j < padded_count; j += kLanes) {
    const Vec e = exp_negative(load(scores + j) - now);
    store(scores + j, e);
    sums += e;
  }
  total = total * factor + sum_of(sums);
  best = now;
  return factor;
}

/// Scores beyond what a row may see become very negative (their exponentials 0).
TESSERA_INLINE void mask_row(float* scores, std::int64_t visible, std::int64_t padded_count) {
  for (std::int64_t j = visible < 0 ? 0 : visible; j < padded_count; ++j) scores[j] = -1e30f;
}

void attention_block(const AttentionBlock& b) {
  const std::int64_t padded = (b.width + kPanel - 1) / kPanel * kPanel;
  Scratch s{};
  s.q = b.scratch;
  s.scores = s.q + kQueryBlock * b.width;
  s.out = s.scores + kQueryBlock * kKeyBlock;
  s.best = s.out + kQueryBlock * padded;
  s.total = s.best + kQueryBlock;
  const std::int64_t rows =
      (b.rows + kRows - 1) / kRows * kRows;  // whole tiles; rows beyond b.rows are zero
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < b.width; ++c)
      s.q[r * b.width + c] = r < b.rows ? b.q[r * b.ldq + c] * b.scale : 0.0f;
    for (std::int64_t c = 0; c < padded; ++c) s.out[r * padded + c] = 0.0f;
    s.best[r] = -1e30f;
    s.total[r] = 0.0f;
  }
  const std::int64_t seen =
      b.causal && b.first + b.rows - 1 < b.keys ? b.first + b.rows - 1 : b.keys;
  for (std::int64_t begin = 0; begin < seen; begin += kKeyBlock) {
    const std::int64_t count = seen - begin < kKeyBlock ? seen - begin : kKeyBlock;
    const std::int64_t whole = (count + kPanel - 1) / kPanel * kPanel;
    for (std::int64_t r = 0; r < rows; r += kRows) {
      for (std::int64_t j = 0; j < whole; j += kPanel) {
        tile_product<false>(s.q + r * b.width, b.width, 1, b.head.keys + (begin + j) * b.width,
                            kPanel, b.width, s.scores + r * kKeyBlock + j, kKeyBlock);
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t visible =
          b.causal && b.first + r - begin < count ? b.first + r - begin : count;
      mask_row(s.scores + r * kKeyBlock, visible, whole);
      if (visible <=
          0) {  // nothing to see in this block; leaves maximum, sum and output as they are
        for (std::int64_t j = 0; j < whole; ++j) s.scores[r * kKeyBlock + j] = 0.0f;
        continue;
      }
      const float factor = softmax_row(s.scores + r * kKeyBlock, whole, s.best[r], s.total[r]);
      if (factor != 1.0f) {
        for (std::int64_t c = 0; c < padded; c += kLanes)
          store(s.out + r * padded + c, load(s.out + r * padded + c) * factor);
      }
    }
    for (std::int64_t r = 0; r < rows; r += kRows) {
      for (std::int64_t c = 0; c < padded; c += kPanel) {
        tile_product<true>(s.scores + r * kKeyBlock, kKeyBlock, 1,
                           b.head.values + begin * padded + c, padded, count,
                           s.out + r * padded + c, padded);
      }
    }
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    const float inverse = 1.0f / s.total[r];
    for (std::int64_t c = 0; c < b.width; ++c)
      b.out[r * b.ldo + c] = s.out[r * padded + c] * inverse;
  }
}

}  // namespace
}  // namespace tessera::kernels
