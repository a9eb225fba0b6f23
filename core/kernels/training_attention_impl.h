// Gradients of attention, a block of queries and keys at a time (Dao et al. 2022); see training.h.
// Scores stand upright, [keys][queries]: as rows they are what the gradients of keys and values are
// made of, and two rows of bf16 numbers interleaved are what those of queries are.
#include "core/kernels/product_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

static_assert(kGradientQueries % kRows == 0 && kGradientQueries % kPanel == 0);
static_assert(kGradientKeys % (2 * kRows) == 0);

constexpr std::int64_t rounded(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Rows [0, count) of a matrix += rows of `padded` floats, times a factor.
TESSERA_INLINE void add_rows(const float* from, std::int64_t padded, std::int64_t count,
                             std::int64_t width, float factor, float* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < count; ++i) {
    prefetch_row(to + (i + kPackedAhead) * ld, width);
    for (std::int64_t c = 0; c < width; ++c) to[i * ld + c] += from[i * padded + c] * factor;
  }
}

/// Words of `n` numbers.
template <bool kPairs>
constexpr std::int64_t words_of(std::int64_t n) {
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
  // these and a block of keys
  float *p, *ds;                // [kGradientKeys][words of kGradientQueries]
  float* ds_columns;            // [words of kGradientKeys][kGradientQueries]
  float *scores, *slopes;       // numbers of a tile: [2 * kRows][kPanel]
  float dot[kGradientQueries];  // rowsum(dO * O)
  float lse[kGradientQueries];
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
  s.p = take(kGradientKeys * words_of<kPairs>(kGradientQueries));
  s.ds = take(kGradientKeys * words_of<kPairs>(kGradientQueries));
  s.ds_columns = kPairs ? take(words_of<kPairs>(kGradientKeys) * kGradientQueries) : s.ds;
  s.scores = take(2 * kRows * kPanel);
  s.slopes = take(2 * kRows * kPanel);
  return s;
}

/// Rows of numbers -> rows of words; zeros up to `whole` rows.
template <bool kPairs>
TESSERA_INLINE void word_rows(const float* from, std::int64_t ld, std::int64_t count,
                              std::int64_t whole, std::int64_t width, float* to) {
  const std::int64_t words = words_of<kPairs>(width);
  for (std::int64_t i = 0; i < whole; ++i, to += words) {
    prefetch_row(from + (i + kPackedAhead) * ld, width);
    if (kPairs && i < count) {
      round_row(from + i * ld, width, 2 * words, reinterpret_cast<std::uint16_t*>(to));
      continue;
    }
    for (std::int64_t c = 0; c < words; ++c) to[c] = i < count ? from[i * ld + c] : 0.0f;
  }
}

/// pack_columns of words.
template <bool kPairs>
TESSERA_INLINE void word_columns(const float* from, std::int64_t ld, bool turned, std::int64_t n,
                                 std::int64_t k, float* to) {
  if (kPairs) {
    pack_column_pairs(from, ld, turned, n, k, to);
  } else {
    pack_columns(from, ld, turned, n, k, to);
  }
}

/// A block of queries [first, first + count) and one of keys [begin, end).
struct GradientBlock {
  std::int64_t first, count;
  std::int64_t begin, end;
};

/// Keys that the last of the queries up to `end` of a block sees.
TESSERA_INLINE std::int64_t seen_before(const AttentionGradient& a, const GradientBlock& b,
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

/// What dropout multiplies the weights of key `key` with, for the queries of one vector from row
/// `row` on.
TESSERA_INLINE Vec dropped_weights(const AttentionGradient& a, std::int64_t row, std::int64_t key) {
  float factors[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i)
    factors[i] = factor_at(a.dropped, (row + i) * a.keys + key);
  return load(factors);
}

/// A vector's queries as words of a row.
template <bool kPairs>
TESSERA_INLINE void put_words(Vec v, float* row, std::int64_t j) {
  if constexpr (kPairs) {
    round_to(v, reinterpret_cast<std::uint16_t*>(row) + j);
  } else {
    store(row + j, v);
  }
}

/// p = P D and ds = P (dP D - dot) of the queries of one vector from j on and the keys of a tile
/// from `key` on, as words, from scores and dP there; zeros where a query does not see a key.
template <bool kPairs, bool kDrops>
TESSERA_INLINE void weights_of_columns(const AttentionGradient& a, const GradientBlock& b,
                                       const GradientScratch& s, std::int64_t j, std::int64_t key) {
  constexpr std::int64_t kRow = words_of<kPairs>(kGradientQueries);
  const Vec dot = load(s.dot + j), lse = load(s.lse + j);
  const std::int64_t all_see = seen_before(a, b, j + 1);
  const std::int64_t seen = seen_before(a, b, j + kLanes);
  const IntVec sees = lanes_from(all_see);  // where causal: keys before this
  for (std::int64_t i = 0; i < 2 * kRows; i += 2) {
    Vec slope[2];
    for (std::int64_t one = 0; one < 2; ++one) {
      const std::int64_t at = key + i + one, from = (i + one) * kPanel + j % kPanel;
      Vec weight{};
      slope[one] = Vec{};
      if (at < seen) {
        Vec x = load(s.scores + from) - lse;
        if (at >= all_see) x = static_cast<std::int32_t>(at) < sees ? x : splat(-1e30f);
        weight = kPairs ? exp_negative_coarse(x) : exp_negative(x);
        const Vec dp = load(s.slopes + from);
        if constexpr (kDrops) {
          const Vec d = dropped_weights(a, b.first + j, at);
          slope[one] = weight * (dp * d - dot);
          weight *= d;
        } else {
          slope[one] = weight * (dp - dot);
        }
      }
      put_words<kPairs>(weight, s.p + (at - b.begin) * kRow, j);
      put_words<kPairs>(slope[one], s.ds + (at - b.begin) * kRow, j);
    }
    if constexpr (kPairs)
      store_pairs(s.ds_columns + (key + i - b.begin) / 2 * kGradientQueries + j, slope[0],
                  slope[1]);
  }
}

/// The block's queries and gradients as words, and what is known of each.
template <bool kPairs>
TESSERA_INLINE void pack_queries(const AttentionGradient& a, const GradientBlock& b,
                                 GradientScratch& s) {
  const float *q = a.q + b.first * a.ldq, *dout = a.dout + b.first * a.lddo,
              *out = a.out + b.first * a.ldo;
  for (std::int64_t i = 0; i < kGradientQueries; ++i) {
    s.dot[i] = s.lse[i] = 0;
    if (i >= b.count) continue;
    prefetch_row(q + (i + kPackedAhead) * a.ldq, a.width);
    prefetch_row(dout + (i + kPackedAhead) * a.lddo, a.width);
    prefetch_row(out + (i + kPackedAhead) * a.ldo, a.width);
    s.lse[i] = a.lse[(b.first + i) * a.ld_lse];
    Vec sums{};
    std::int64_t c = 0;
    for (; c + kLanes <= a.width; c += kLanes)
      sums += load(out + i * a.ldo + c) * load(dout + i * a.lddo + c);
    s.dot[i] = sum_of(sums);
    for (; c < a.width; ++c) s.dot[i] += out[i * a.ldo + c] * dout[i * a.lddo + c];
    for (c = 0; c < a.width; ++c) s.rows[i * a.width + c] = q[i * a.ldq + c] * a.scale;
  }
  word_columns<kPairs>(s.rows, a.width, true, b.count, a.width, s.q);
  word_columns<kPairs>(dout, a.lddo, true, b.count, a.width, s.dout);
  word_columns<kPairs>(s.rows, a.width, false, a.width, b.count, s.q_columns);
  word_columns<kPairs>(dout, a.lddo, false, a.width, b.count, s.dout_columns);
  for (std::int64_t i = 0; i < kGradientQueries * s.padded; ++i) s.dq[i] = 0.0f;
}

/// P and dS of a block, from P = e^(q k^T scale - lse) and dP = dO v^T.
template <bool kPairs>
TESSERA_INLINE void find_weights(const AttentionGradient& a, const GradientBlock& b,
                                 const GradientScratch& s) {
  for (std::int64_t j = 0; j < b.count; j += kPanel) {
    const std::int64_t seen = seen_before(a, b, j + kPanel);
    std::int64_t key = b.begin;
    for (; key < b.end && key < seen; key += 2 * kRows) {
      for (std::int64_t i = 0; i < 2 * kRows; i += kRows) {
        const std::int64_t row = (key + i) * s.words;
        word_product<kPairs, kRows, false>(s.keys + row, s.words, 1, s.q + j * s.words, kPanel,
                                           s.words, s.scores + i * kPanel, kPanel);
        word_product<kPairs, kRows, false>(s.values + row, s.words, 1, s.dout + j * s.words, kPanel,
                                           s.words, s.slopes + i * kPanel, kPanel);
      }
      for (std::int64_t lanes = j; lanes < j + kPanel; lanes += kLanes) {
        if (a.dropped.least > 0) {
          weights_of_columns<kPairs, true>(a, b, s, lanes, key);
        } else {
          weights_of_columns<kPairs, false>(a, b, s, lanes, key);
        }
      }
    }
    for (; key < b.end; key += kPairs ? 2 : 1) {  // for tiles of queries across two panels
      float* row = s.ds_columns + words_of<kPairs>(key - b.begin) * kGradientQueries + j;
      for (std::int64_t i = 0; i < kPanel; ++i) row[i] = 0.0f;
    }
  }
}

/// dV += (P D)^T dO;  dS = P * (dO v^T D - rowsum(dO * O));  dQ += dS k;  dK += dS^T q scale;
/// D: what dropout multiplies P with, 1 without it
template <bool kPairs>
void gradient_block(const AttentionGradient& a, const GradientScratch& s, const GradientBlock& b) {
  constexpr std::int64_t kRow = words_of<kPairs>(kGradientQueries);
  find_weights<kPairs>(a, b, s);
  const std::int64_t queries = words_of<kPairs>(b.count), keys = words_of<kPairs>(a.keys);
  for (std::int64_t c = 0; c < s.padded; c += kPanel) {
    const std::int64_t panel = c / kPanel;
    for (std::int64_t r = 0; r < b.count; r += kRows) {
      const std::int64_t last = rounded(r + kRows < b.count ? r + kRows : b.count, kPanel);
      const std::int64_t seen = seen_before(a, b, last), end = seen < b.end ? seen : b.end;
      if (end <= b.begin) continue;
      word_product<kPairs, kRows, true>(
          s.ds_columns + r, 1, kGradientQueries,
          s.key_columns + (panel * keys + words_of<kPairs>(b.begin)) * kPanel, kPanel,
          words_of<kPairs>(end - b.begin), s.dq + r * s.padded + c, s.padded);
    }
    std::int64_t from = 0;  // the first queries that see a key
    for (std::int64_t key = b.begin; key < b.end; key += kRows) {
      while (from + kPanel < b.count && seen_before(a, b, from + kPanel) <= key) from += kPanel;
      const std::int64_t at = words_of<kPairs>(from);
      const std::int64_t column = (panel * queries + at) * kPanel;
      const std::int64_t row = (key - b.begin) * kRow + at, to = key * s.padded + c;
      word_product<kPairs, kRows, true>(s.p + row, kRow, 1, s.dout_columns + column, kPanel,
                                        queries - at, s.dvalues + to, s.padded);
      word_product<kPairs, kRows, true>(s.ds + row, kRow, 1, s.q_columns + column, kPanel,
                                        queries - at, s.dkeys + to, s.padded);
    }
  }
}

template <bool kPairs>
void attention_gradient(const AttentionGradient& a) {
  GradientScratch s = cut<kPairs>(a);
  word_rows<kPairs>(a.k, a.ldk, a.keys, s.key_rows, a.width, s.keys);
  word_rows<kPairs>(a.v, a.ldv, a.keys, s.key_rows, a.width, s.values);
  word_columns<kPairs>(a.k, a.ldk, false, a.width, a.keys, s.key_columns);
  for (std::int64_t i = 0; i < s.key_rows * s.padded; ++i) s.dkeys[i] = s.dvalues[i] = 0.0f;
  for (std::int64_t first = 0; first < a.queries; first += kGradientQueries) {
    const std::int64_t left = a.queries - first;
    GradientBlock b{first, left < kGradientQueries ? left : kGradientQueries, 0, 0};
    pack_queries<kPairs>(a, b, s);
    const std::int64_t whole = rounded(seen_before(a, b, rounded(b.count, kPanel)), 2 * kRows);
    for (; b.begin < whole; b.begin += kGradientKeys) {
      b.end = b.begin + kGradientKeys < whole ? b.begin + kGradientKeys : whole;
      gradient_block<kPairs>(a, s, b);
    }
    add_rows(s.dq, s.padded, b.count, a.width, a.scale, a.dq + first * a.lddq, a.lddq);
  }
  add_rows(s.dkeys, s.padded, a.keys, a.width, 1.0f, a.dk, a.lddk);  // q has the scale in it
  add_rows(s.dvalues, s.padded, a.keys, a.width, 1.0f, a.dv, a.lddv);
}

}  // namespace
}  // namespace tessera::kernels
