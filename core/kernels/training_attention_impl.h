// Gradients of attention, a block of queries at a time (Dao et al. 2022); see training.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

/// c[rows][kPanel] (row stride ldc) += a^T b: a [depth][rows] (stride lda), b [depth][kPanel]
/// (stride ldb).
TESSERA_INLINE void turned_product(const float* a, std::int64_t lda, const float* b,
                                   std::int64_t ldb, std::int64_t depth, float* c,
                                   std::int64_t ldc) {
  Vec acc[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    acc[r][0] = load(c + r * ldc);
    acc[r][1] = load(c + r * ldc + kLanes);
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const Vec b0 = load(b + k * ldb), b1 = load(b + k * ldb + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec x = splat(a[k * lda + r]);
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

constexpr std::int64_t rounded(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Rows [first, first + count) of a matrix -> rows of `padded` floats, times a factor; zeros
/// beyond, up to `whole` rows.
TESSERA_INLINE void copy_rows(const float* from, std::int64_t ld, std::int64_t count,
                              std::int64_t whole, std::int64_t width, std::int64_t padded,
                              float factor, float* to) {
  for (std::int64_t i = 0; i < whole; ++i, to += padded) {
    for (std::int64_t c = 0; c < width; ++c) to[c] = i < count ? from[i * ld + c] * factor : 0.0f;
    for (std::int64_t c = width; c < padded; ++c) to[c] = 0.0f;
  }
}

TESSERA_INLINE void add_rows(const float* from, std::int64_t padded, std::int64_t count,
                             std::int64_t width, float factor, float* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t c = 0; c < width; ++c) to[i * ld + c] += from[i * padded + c] * factor;
  }
}

struct GradientScratch {
  std::int64_t padded;     // width in whole panels
  std::int64_t key_rows;   // keys in whole panels, and room for a group of kRows behind them
  float *keys, *values;    // in panels: [keys/panel][width][panel]
  float* key_lines;        // [key_rows][padded]
  float *dkeys, *dvalues;  // [key_rows][padded]
  float *q, *dout, *dq;    // [kQueryBlock][padded]
  float *p, *ds;           // [kQueryBlock][key_rows]
};

TESSERA_INLINE GradientScratch cut(const AttentionGradient& a) {
  GradientScratch s{};
  s.padded = rounded(a.width, kPanel);
  s.key_rows = rounded(a.keys, kPanel) + kRows;
  float* at = a.scratch;
  const auto take = [&](std::int64_t n) {
    float* taken = at;
    at += n;
    return taken;
  };
  s.keys = take(s.key_rows * a.width);
  s.values = take(s.key_rows * a.width);
  s.key_lines = take(s.key_rows * s.padded);
  s.dkeys = take(s.key_rows * s.padded);
  s.dvalues = take(s.key_rows * s.padded);
  s.q = take(kQueryBlock * s.padded);
  s.dout = take(kQueryBlock * s.padded);
  s.dq = take(kQueryBlock * s.padded);
  s.p = take(kQueryBlock * s.key_rows);
  s.ds = take(kQueryBlock * s.key_rows);
  return s;
}

/// Scores of one row -> probabilities; those it does not see become 0.
TESSERA_INLINE void softmax_whole(float* scores, std::int64_t visible, std::int64_t padded_count) {
  for (std::int64_t j = visible; j < padded_count; ++j) scores[j] = -1e30f;
  Vec high = load(scores);
  for (std::int64_t j = kLanes; j < padded_count; j += kLanes)
    high = larger(high, load(scores + j));
  const float top = max_of(high);
  Vec sums{};
  for (std::int64_t j = 0; j < padded_count; j += kLanes) {
    const Vec e = exp_negative(load(scores + j) - top);
    store(scores + j, e);
    sums += e;
  }
  const float inverse = 1.0f / sum_of(sums);
  for (std::int64_t j = 0; j < padded_count; j += kLanes)
    store(scores + j, load(scores + j) * inverse);
}

// P = softmax(q k^T scale);  dV += P^T dO;  dS = P * (dO v^T - rowsum(dO * O));
// dQ += dS k scale;  dK += dS^T q scale
void gradient_block(const AttentionGradient& a, const GradientScratch& s, std::int64_t first,
                    std::int64_t count) {
  const std::int64_t rows = rounded(count, kRows), padded = s.padded, ld = s.key_rows;
  const std::int64_t past = a.keys - a.queries;
  const std::int64_t seen = a.causal ? past + first + count : a.keys, whole = rounded(seen, kPanel);
  copy_rows(a.q + first * a.ldq, a.ldq, count, rows, a.width, padded, a.scale, s.q);
  copy_rows(a.dout + first * a.lddo, a.lddo, count, rows, a.width, padded, 1.0f, s.dout);
  for (std::int64_t r = 0; r < rows; r += kRows) {
    for (std::int64_t j = 0; j < whole; j += kPanel) {
      tile_product<false>(s.q + r * padded, padded, s.keys + j * a.width, kPanel, a.width,
                          s.p + r * ld + j, ld);
      tile_product<false>(s.dout + r * padded, padded, s.values + j * a.width, kPanel, a.width,
                          s.ds + r * ld + j, ld);
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    float *p = s.p + r * ld, *ds = s.ds + r * ld;
    for (std::int64_t j = r < count ? whole : 0; j < whole + kRows; ++j) p[j] = ds[j] = 0.0f;
    if (r >= count) continue;
    softmax_whole(p, a.causal ? past + first + r + 1 : a.keys, whole);
    float dot = 0;
    const float* out = a.out + (first + r) * a.ldo;
    for (std::int64_t c = 0; c < a.width; ++c) dot += out[c] * s.dout[r * padded + c];
    for (std::int64_t j = 0; j < whole; j += kLanes)
      store(ds + j, load(p + j) * (load(ds + j) - dot));
  }
  for (std::int64_t i = 0; i < rows * padded; ++i) s.dq[i] = 0.0f;
  for (std::int64_t c = 0; c < padded; c += kPanel) {
    for (std::int64_t r = 0; r < rows; r += kRows) {
      tile_product<true>(s.ds + r * ld, ld, s.key_lines + c, padded, whole, s.dq + r * padded + c,
                         padded);
    }
    for (std::int64_t j = 0; j < whole; j += kRows) {
      turned_product(s.p + j, ld, s.dout + c, padded, rows, s.dvalues + j * padded + c, padded);
      turned_product(s.ds + j, ld, s.q + c, padded, rows, s.dkeys + j * padded + c, padded);
    }
  }
  add_rows(s.dq, padded, count, a.width, a.scale, a.dq + first * a.lddq, a.lddq);
}

void attention_gradient(const AttentionGradient& a) {
  const GradientScratch s = cut(a);
  for (std::int64_t begin = 0; begin < a.keys; begin += kPanel) {
    const std::int64_t end = begin + kPanel < a.keys ? begin + kPanel : a.keys;
    // dkeys and dvalues serve as the place for what pack_head makes of rows
    pack_head(a.k, a.ldk, a.k, a.ldk, begin, end, a.width, s.keys, s.dkeys);
    pack_head(a.v, a.ldv, a.v, a.ldv, begin, end, a.width, s.values, s.dvalues);
  }
  copy_rows(a.k, a.ldk, a.keys, s.key_rows, a.width, s.padded, 1.0f, s.key_lines);
  for (std::int64_t i = 0; i < s.key_rows * s.padded; ++i) s.dkeys[i] = s.dvalues[i] = 0.0f;
  for (std::int64_t first = 0; first < a.queries; first += kQueryBlock) {
    gradient_block(a, s, first, a.queries - first < kQueryBlock ? a.queries - first : kQueryBlock);
  }
  add_rows(s.dkeys, s.padded, a.keys, a.width, 1.0f, a.dk, a.lddk);  // q has the scale in it
  add_rows(s.dvalues, s.padded, a.keys, a.width, 1.0f, a.dv, a.lddv);
}

}  // namespace
}  // namespace tessera::kernels
