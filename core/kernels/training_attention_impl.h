// Gradients of attention, a block of queries at a time (Dao et al. 2022); see training.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

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
  mask_row(scores, visible, padded_count);
  float best = 0, total = 0;
  exponentials(scores, padded_count, best, total);
  const float inverse = 1.0f / total;
  for (std::int64_t j = 0; j < padded_count; j += kLanes)
    store(scores + j, load(scores + j) * inverse);
}

/// A row of weights p and of ds = dO v^T -> p D and p (ds D - dot), where D is 0 for weights that
/// are dropped and `scale` for others.
TESSERA_INLINE void drop_gradients(float* p, float* ds, float dot, const Dropout& dropped,
                                   std::int64_t row, std::int64_t count) {
  const Dropout own = {dropped.stream + static_cast<std::uint64_t>(row), dropped.least,
                       dropped.scale};  // a copy: GCC 12 makes vectors of the loop then
  for (std::int64_t j = 0; j < count; ++j) {
    const float d = factor_at(own, j);
    ds[j] = p[j] * (ds[j] * d - dot);
    p[j] *= d;
  }
}

// P = softmax(q k^T scale);  dV += (P D)^T dO;  dS = P * (dO v^T D - rowsum(dO * O));
// dQ += dS k scale;  dK += dS^T q scale;  D: what dropout multiplies P with, 1 without it
void gradient_block(const AttentionGradient& a, const GradientScratch& s, std::int64_t first,
                    std::int64_t count) {
  const std::int64_t rows = rounded(count, kRows), padded = s.padded, ld = s.key_rows;
  const std::int64_t past = a.keys - a.queries;
  const std::int64_t seen = a.causal ? past + first + count : a.keys, whole = rounded(seen, kPanel);
  copy_rows(a.q + first * a.ldq, a.ldq, count, rows, a.width, padded, a.scale, s.q);
  copy_rows(a.dout + first * a.lddo, a.lddo, count, rows, a.width, padded, 1.0f, s.dout);
  for (std::int64_t r = 0; r < rows; r += kRows) {
    for (std::int64_t j = 0; j < whole; j += kPanel) {
      tile_product<false>(s.q + r * padded, padded, 1, s.keys + j * a.width, kPanel, a.width,
                          s.p + r * ld + j, ld);
      tile_product<false>(s.dout + r * padded, padded, 1, s.values + j * a.width, kPanel, a.width,
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
    if (a.dropped.least > 0) {
      drop_gradients(p, ds, dot, a.dropped, (first + r) * a.keys, whole);
      continue;
    }
    for (std::int64_t j = 0; j < whole; j += kLanes)
      store(ds + j, load(p + j) * (load(ds + j) - dot));
  }
  for (std::int64_t i = 0; i < rows * padded; ++i) s.dq[i] = 0.0f;
  for (std::int64_t c = 0; c < padded; c += kPanel) {
    for (std::int64_t r = 0; r < rows; r += kRows) {
      tile_product<true>(s.ds + r * ld, ld, 1, s.key_lines + c, padded, whole,
                         s.dq + r * padded + c, padded);
    }
    for (std::int64_t j = 0; j < whole; j += kRows) {
      tile_product<true>(s.p + j, 1, ld, s.dout + c, padded, rows, s.dvalues + j * padded + c,
                         padded);
      tile_product<true>(s.ds + j, 1, ld, s.q + c, padded, rows, s.dkeys + j * padded + c, padded);
    }
  }
  add_rows(s.dq, padded, count, a.width, a.scale, a.dq + first * a.lddq, a.lddq);
}

void attention_gradient(const AttentionGradient& a) {
  const GradientScratch s = cut(a);
  for (std::int64_t begin = 0; begin < a.keys; begin += kPanel) {
    const std::int64_t end = begin + kPanel < a.keys ? begin + kPanel : a.keys;
    // dkeys and dvalues serve as the place for what pack_head makes of rows
    pack_head<Exact>({a.k, a.k, a.ldk, a.ldk, false}, begin, end, a.width, s.keys, s.dkeys);
    pack_head<Exact>({a.v, a.v, a.ldv, a.ldv, false}, begin, end, a.width, s.values, s.dvalues);
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
