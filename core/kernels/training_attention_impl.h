// Gradients of attention, a block of queries at a time (Dao et al. 2022); see training.h. Scores
// stand upright, [keys][queries]: as rows they are what the gradients of keys and values are made
// of, and two rows of bf16 numbers interleaved are what those of queries are.
#include "core/kernels/product_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

static_assert(kGradientQueries % kRows == 0 && kGradientQueries % kPanel == 0);

constexpr std::int64_t rounded(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Rows [0, count) of a matrix += rows of `padded` floats, times a factor.
TESSERA_INLINE void add_rows(const float* from, std::int64_t padded, std::int64_t count,
                             std::int64_t width, float factor, float* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t c = 0; c < width; ++c) to[i * ld + c] += from[i * padded + c] * factor;
  }
}

/// Words of `n` numbers.
template <bool kPairs>
TESSERA_INLINE std::int64_t words_of(std::int64_t n) {
  return kPairs ? (n + 1) / 2 : n;
}

/// Places for words unless said otherwise; `words` of a row, `padded` of it in whole panels.
struct GradientScratch {
  std::int64_t words, padded;
  std::int64_t key_rows;   // keys in whole tiles of rows
  float *keys, *values;    // [key_rows][words]
  float* key_columns;      // [padded/panel][words of keys][panel]
  float *dkeys, *dvalues;  // numbers, [key_rows][padded]
  // a block of queries
  float* rows;                      // numbers, [kGradientQueries][width]
  float *q, *dout;                  // [kGradientQueries/panel][words][panel]
  float *q_columns, *dout_columns;  // [padded/panel][words of queries][panel]
  float* dq;                        // numbers, [kGradientQueries][padded]
  float *p, *ds;                    // [key_rows][kGradientQueries]: numbers, then words
  float* ds_columns;                // [words of keys][kGradientQueries]
  float dot[kGradientQueries];      // rowsum(dO * O)
};

template <bool kPairs>
TESSERA_INLINE GradientScratch cut(const AttentionGradient& a) {
  GradientScratch s;
  s.words = words_of<kPairs>(a.width);
  s.padded = rounded(a.width, kPanel);
  s.key_rows = rounded(a.keys, 2 * kRows);  // even
  float* at = a.scratch;
  const auto take = [&](std::int64_t n) {
    float* taken = at;
    at += n;
    return taken;
  };
  s.keys = take(s.key_rows * s.words);
  s.values = take(s.key_rows * s.words);
  s.key_columns = take(s.key_rows * s.padded);
  s.dkeys = take(s.key_rows * s.padded);
  s.dvalues = take(s.key_rows * s.padded);
  s.rows = take(kGradientQueries * a.width);
  s.q = take(kGradientQueries * s.words);
  s.dout = take(kGradientQueries * s.words);
  s.q_columns = take(kGradientQueries * s.padded);
  s.dout_columns = take(kGradientQueries * s.padded);
  s.dq = take(kGradientQueries * s.padded);
  s.p = take(s.key_rows * kGradientQueries);
  s.ds = take(s.key_rows * kGradientQueries);
  s.ds_columns = kPairs ? take(s.key_rows / 2 * kGradientQueries) : s.ds;
  return s;
}

/// Rows of numbers -> rows of words; zeros up to `whole` rows.
template <bool kPairs>
TESSERA_INLINE void word_rows(const float* from, std::int64_t ld, std::int64_t count,
                              std::int64_t whole, std::int64_t width, float* to) {
  const std::int64_t words = words_of<kPairs>(width);
  for (std::int64_t i = 0; i < whole; ++i, to += words) {
    if (kPairs && i < count) {
      round_row(from + i * ld, width, 2 * words, reinterpret_cast<std::uint16_t*>(to));
      continue;
    }
    for (std::int64_t c = 0; c < words; ++c) to[c] = i < count ? from[i * ld + c] : 0.0f;
  }
}

/// Columns of what lies as rows [count][width], a panel of them after the other.
template <bool kPairs>
TESSERA_INLINE void word_columns(const float* from, std::int64_t ld, std::int64_t count,
                                 std::int64_t width, float* to) {
  for (std::int64_t c = 0; c < width; c += kPanel, to += words_of<kPairs>(count) * kPanel) {
    const std::int64_t columns = width - c < kPanel ? width - c : kPanel;
    if (kPairs) {
      pack_column_pairs(from + c, ld, false, columns, count, to);
    } else {
      pack_columns(from + c, ld, false, columns, count, to);
    }
  }
}

/// The transpose of that: rows as columns.
template <bool kPairs>
TESSERA_INLINE void word_panels(const float* from, std::int64_t ld, std::int64_t count,
                                std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < count; i += kPanel) {
    const std::int64_t columns = count - i < kPanel ? count - i : kPanel;
    for (std::int64_t c = 0; c < width; c += kMostPairedNumbers) {
      const std::int64_t depth = width - c < kMostPairedNumbers ? width - c : kMostPairedNumbers;
      if (kPairs) {
        pack_column_pairs(from + i * ld + c, ld, true, columns, depth, to);
      } else {
        pack_columns(from + i * ld + c, ld, true, columns, depth, to);
      }
      to += words_of<kPairs>(depth) * kPanel;
    }
  }
}

/// A block of queries [first, first + count), and what they see.
struct QueryBlock {
  std::int64_t first, count;
  std::int64_t whole;  // keys that the last one sees, in whole tiles of rows
};

/// Keys that the last of the queries up to `end` of a block sees.
TESSERA_INLINE std::int64_t seen_before(const AttentionGradient& a, const QueryBlock& b,
                                        std::int64_t end) {
  const std::int64_t seen = a.keys - a.queries + b.first + end;
  return a.causal && seen < a.keys ? seen : a.keys;
}

/// The number of the query in each lane, of a block, from j on.
TESSERA_INLINE IntVec lanes_from(std::int64_t j) {
  IntVec lanes;
  for (std::int64_t i = 0; i < kLanes; ++i) lanes[i] = static_cast<std::int32_t>(j + i);
  return lanes;
}

/// Scores of the queries of one vector -> exponentials; returns 1 / their sums. Those of keys that
/// a query does not see become 0.
template <bool kPairs>
TESSERA_INLINE Vec exponentials_of_columns(const AttentionGradient& a, const QueryBlock& b,
                                           float* scores, std::int64_t j, std::int64_t seen) {
  const std::int64_t all_see = seen_before(a, b, j + 1);
  const IntVec sees = lanes_from(all_see);  // where causal: keys before this
  Vec best = splat(-1e30f), total{};
  for (std::int64_t key = 0; key < seen; ++key) {
    Vec score = load(scores + key * kGradientQueries);
    if (key >= all_see) {
      score = static_cast<std::int32_t>(key) < sees ? score : splat(-1e30f);
      store(scores + key * kGradientQueries, score);
    }
    best = larger(best, score);
  }
  for (std::int64_t key = 0; key < seen; ++key) {
    const Vec x = load(scores + key * kGradientQueries) - best;
    const Vec e = kPairs ? exp_negative_coarse(x) : exp_negative(x);
    store(scores + key * kGradientQueries, e);
    total += e;
  }
  return 1.0f / total;
}

/// What dropout multiplies the weights of key `key` with, for the queries of one vector from row
/// `row` on.
TESSERA_INLINE Vec dropped_weights(const AttentionGradient& a, std::int64_t row, std::int64_t key) {
  if (a.dropped.least == 0) return splat(1.0f);
  float factors[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i)
    factors[i] = factor_at(a.dropped, (row + i) * a.keys + key);
  return load(factors);
}

/// p = P D and ds = P (dP D - dot) as words, from exponentials and dP of the queries of one vector
/// from j on; zeros for keys from `seen` to b.whole.
template <bool kPairs, bool kDrops>
TESSERA_INLINE void weights_of_columns(const AttentionGradient& a, const QueryBlock& b,
                                       const GradientScratch& s, std::int64_t j, std::int64_t seen,
                                       Vec inverse) {
  const Vec dot = load(s.dot + j);
  for (std::int64_t key = 0; key < b.whole; key += 2) {
    Vec slope[2];
    for (std::int64_t i = 0; i < 2; ++i) {
      float *p = s.p + (key + i) * kGradientQueries, *ds = s.ds + (key + i) * kGradientQueries;
      Vec weight{};
      slope[i] = Vec{};
      if (key + i < seen) {
        weight = load(p + j) * inverse;
        Vec dp = load(ds + j);
        const Vec d = kDrops ? dropped_weights(a, b.first + j, key + i) : splat(1.0f);
        if (kDrops) dp *= d;
        slope[i] = weight * (dp - dot);
        if (kDrops) weight *= d;
      }
      if constexpr (kPairs) {  // never before what is still to be read
        round_to(weight, reinterpret_cast<std::uint16_t*>(p) + j);
        round_to(slope[i], reinterpret_cast<std::uint16_t*>(ds) + j);
      } else {
        store(p + j, weight);
        store(ds + j, slope[i]);
      }
    }
    if constexpr (kPairs)
      store_pairs(s.ds_columns + key / 2 * kGradientQueries + j, slope[0], slope[1]);
  }
}

/// The block's queries and gradients as words, and dot.
template <bool kPairs>
TESSERA_INLINE void pack_queries(const AttentionGradient& a, const QueryBlock& b,
                                 GradientScratch& s) {
  const float *q = a.q + b.first * a.ldq, *dout = a.dout + b.first * a.lddo,
              *out = a.out + b.first * a.ldo;
  for (std::int64_t i = 0; i < kGradientQueries; ++i) {
    s.dot[i] = 0;
    if (i >= b.count) continue;
    Vec sums{};
    std::int64_t c = 0;
    for (; c + kLanes <= a.width; c += kLanes)
      sums += load(out + i * a.ldo + c) * load(dout + i * a.lddo + c);
    s.dot[i] = sum_of(sums);
    for (; c < a.width; ++c) s.dot[i] += out[i * a.ldo + c] * dout[i * a.lddo + c];
    for (c = 0; c < a.width; ++c) s.rows[i * a.width + c] = q[i * a.ldq + c] * a.scale;
  }
  word_panels<kPairs>(s.rows, a.width, b.count, a.width, s.q);
  word_panels<kPairs>(dout, a.lddo, b.count, a.width, s.dout);
  word_columns<kPairs>(s.rows, a.width, b.count, a.width, s.q_columns);
  word_columns<kPairs>(dout, a.lddo, b.count, a.width, s.dout_columns);
}

/// P and dS of a block, from P = softmax(q k^T scale) and dP = dO v^T.
template <bool kPairs>
TESSERA_INLINE void find_weights(const AttentionGradient& a, const QueryBlock& b,
                                 const GradientScratch& s) {
  for (std::int64_t j = 0; j < b.count; j += kPanel) {
    const std::int64_t seen = seen_before(a, b, j + kPanel);
    for (std::int64_t key = 0; key < seen; key += kRows) {
      word_product<kPairs, kRows, false>(s.keys + key * s.words, s.words, 1, s.q + j * s.words,
                                         kPanel, s.words, s.p + key * kGradientQueries + j,
                                         kGradientQueries);
      word_product<kPairs, kRows, false>(s.values + key * s.words, s.words, 1, s.dout + j * s.words,
                                         kPanel, s.words, s.ds + key * kGradientQueries + j,
                                         kGradientQueries);
    }
  }
  for (std::int64_t j = 0; j < rounded(b.count, kPanel); j += kLanes) {
    const std::int64_t seen = seen_before(a, b, j / kPanel * kPanel + kPanel);
    const Vec inverse = exponentials_of_columns<kPairs>(a, b, s.p + j, j, seen);
    if (a.dropped.least > 0) {
      weights_of_columns<kPairs, true>(a, b, s, j, seen, inverse);
    } else {
      weights_of_columns<kPairs, false>(a, b, s, j, seen, inverse);
    }
  }
}

// dV += (P D)^T dO;  dS = P * (dO v^T D - rowsum(dO * O));  dQ += dS k scale;  dK += dS^T q scale;
// D: what dropout multiplies P with, 1 without it
template <bool kPairs>
void gradient_block(const AttentionGradient& a, GradientScratch& s, std::int64_t first,
                    std::int64_t count) {
  QueryBlock b{first, count, 0};
  b.whole = rounded(seen_before(a, b, rounded(count, kPanel)), 2 * kRows);
  pack_queries<kPairs>(a, b, s);
  find_weights<kPairs>(a, b, s);
  const std::int64_t queries = words_of<kPairs>(count), keys = words_of<kPairs>(a.keys);
  for (std::int64_t c = 0; c < s.padded; c += kPanel) {
    const std::int64_t panel = c / kPanel;
    for (std::int64_t r = 0; r < count; r += kRows) {
      const std::int64_t last = rounded(r + kRows < count ? r + kRows : count, kPanel);
      word_product<kPairs, kRows, false>(
          s.ds_columns + r, 1, kGradientQueries, s.key_columns + panel * keys * kPanel, kPanel,
          words_of<kPairs>(seen_before(a, b, last)), s.dq + r * s.padded + c, s.padded);
    }
    std::int64_t from = 0;  // the first queries that see a key
    for (std::int64_t key = 0; key < b.whole; key += kRows) {
      while (from + kPanel < count && seen_before(a, b, from + kPanel) <= key) from += kPanel;
      const std::int64_t at = words_of<kPairs>(from);
      const std::int64_t column = panel * queries * kPanel + at * kPanel;
      const std::int64_t row = key * kGradientQueries + at, to = key * s.padded + c;
      word_product<kPairs, kRows, true>(s.p + row, kGradientQueries, 1, s.dout_columns + column,
                                        kPanel, queries - at, s.dvalues + to, s.padded);
      word_product<kPairs, kRows, true>(s.ds + row, kGradientQueries, 1, s.q_columns + column,
                                        kPanel, queries - at, s.dkeys + to, s.padded);
    }
  }
  add_rows(s.dq, s.padded, count, a.width, a.scale, a.dq + first * a.lddq, a.lddq);
}

template <bool kPairs>
void attention_gradient(const AttentionGradient& a) {
  GradientScratch s = cut<kPairs>(a);
  word_rows<kPairs>(a.k, a.ldk, a.keys, s.key_rows, a.width, s.keys);
  word_rows<kPairs>(a.v, a.ldv, a.keys, s.key_rows, a.width, s.values);
  word_columns<kPairs>(a.k, a.ldk, a.keys, a.width, s.key_columns);
  for (std::int64_t i = 0; i < s.key_rows * s.padded; ++i) s.dkeys[i] = s.dvalues[i] = 0.0f;
  for (std::int64_t first = 0; first < a.queries; first += kGradientQueries) {
    const std::int64_t left = a.queries - first;
    gradient_block<kPairs>(a, s, first, left < kGradientQueries ? left : kGradientQueries);
  }
  add_rows(s.dkeys, s.padded, a.keys, a.width, 1.0f, a.dk, a.lddk);  // q has the scale in it
  add_rows(s.dvalues, s.padded, a.keys, a.width, 1.0f, a.dv, a.lddv);
}

}  // namespace
}  // namespace tessera::kernels
