// Attention in blocks with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022); see
// vector.h.
#pragma once
#include "core/kernels/half_impl.h"
#include "core/kernels/product_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

constexpr float kLog2E = 1.44269504089f;

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
/// x less the largest integer that is not above it.
TESSERA_INLINE Vec above_floor(Vec x) {
  constexpr int kLessFloor = 9;
  return (Vec)_mm512_maskz_reduce_ps(0xffff, (__m512)x, kLessFloor);
}
#endif

/// 2^x for x <= 0 (relative error below 2e-7; 0 below -126): 2^n times a polynomial of degree 5 of
/// what is left, n the integer below where instructions are made for it, else the nearest.
TESSERA_INLINE Vec near_power_of_two(Vec x) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  const Vec f = above_floor(x);
  Vec p = f * 1.867130166e-3f + 9.017029777e-3f;
  p = p * f + 5.579991266e-2f;
  p = p * f + 2.401644439e-1f;
  p = p * f + 6.931512952e-1f;
  p = p * f + 1.0f;
  const __mmask16 counts = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-126.0f), _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(counts, (__m512)p, (__m512)x);
#else
  const Vec round = splat(kIntegersFrom);
  const Vec shifted = x + round, f = x - (shifted - round);
  Vec p = f * 1.326472725e-3f + 9.671512688e-3f;
  p = p * f + 5.550733744e-2f;
  p = p * f + 2.402224208e-1f;
  p = p * f + 6.931469776e-1f;
  p = p * f + 1.0f;
  const Vec y = (Vec)((BitVec)p + ((BitVec)shifted << 23));
  return x < -126.0f ? Vec{} : y;
#endif
}

/// Keys, values and weights as they are.
struct Exact {
  typedef float Number;
  static constexpr std::int64_t kDepth = 1;  // numbers side by side in a lane
  static constexpr float kScale = kLog2E;    // of scores: weights are powers of 2

  template <class From>
  TESSERA_INLINE static void pack_keys(const From* k, std::int64_t ldk, std::int64_t count,
                                       std::int64_t width, float* panel) {
    turn_columns(k, ldk, count < kPanel ? count : kPanel, width, panel);
  }
  template <class From>
  TESSERA_INLINE static void pack_values(const From* v, std::int64_t, std::int64_t,
                                         std::int64_t width, std::int64_t padded, float* to) {
    for (std::int64_t c = 0; c < width; ++c) to[c] = number_at(v + c);
    for (std::int64_t c = width; c < padded; ++c) to[c] = 0.0f;
  }
  TESSERA_INLINE static void scale_row(const float* q, float scale, std::int64_t width, float* to) {
    for (std::int64_t c = 0; c < width; ++c) to[c] = q ? q[c] * scale : 0.0f;
  }
  TESSERA_INLINE static Vec exponential(Vec x) { return near_power_of_two(x); }
  TESSERA_INLINE static void put(float* row, std::int64_t j, Vec v) { store(row + j, v); }
};

/// Rounded to bf16, in pairs: of a key's numbers, and of a column of two neighbouring values.
struct Rounded {
  typedef std::uint16_t Number;
  static constexpr std::int64_t kDepth = 2;
  static constexpr float kScale = 1.0f;

  template <class From>
  TESSERA_INLINE static void pack_keys(const From* k, std::int64_t ldk, std::int64_t count,
                                       std::int64_t width, Number* panel) {
    const std::int64_t pairs = (width + 1) / 2;
    for (std::int64_t j = 0; j < kPanel; ++j) {
      const From* row = k + j * ldk;
      for (std::int64_t c = 0; c < pairs; ++c) {
        const std::uint32_t pair = j < count ? pair_at(row + 2 * c, 2 * c + 1 < width) : 0;
        __builtin_memcpy(panel + 2 * (c * kPanel + j), &pair, sizeof pair);
      }
    }
  }
  template <class From>
  TESSERA_INLINE static void pack_values(const From* v, std::int64_t ldv, std::int64_t count,
                                         std::int64_t width, std::int64_t padded, Number* to) {
    const From* next = v + ldv;
    std::int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      const IntVec pairs = pairs_of(numbers_at(v + c), count > 1 ? numbers_at(next + c) : Vec{});
      __builtin_memcpy(to + 2 * c, &pairs, sizeof pairs);
    }
    for (; c < padded; ++c) {
      std::uint32_t pair = 0;
      if (c < width) pair = pair_of(number_at(v + c), count > 1 ? number_at(next + c) : 0.0f);
      __builtin_memcpy(to + 2 * c, &pair, sizeof pair);
    }
  }
  TESSERA_INLINE static void scale_row(const float* q, float scale, std::int64_t width,
                                       Number* to) {
    std::int64_t c = 0;
    for (; q && c + kLanes <= width; c += kLanes) round_to(load(q + c) * scale, to + c);
    for (; c < width; c += 2) {
      const std::uint32_t pair =
          q ? pair_of(q[c] * scale, c + 1 < width ? q[c + 1] * scale : 0.0f) : 0;
      __builtin_memcpy(to + c, &pair, sizeof pair);
    }
  }
  TESSERA_INLINE static Vec exponential(Vec x) { return exp_negative_coarse(x); }
  TESSERA_INLINE static void put(Number* row, std::int64_t j, Vec v) { round_to(v, row + j); }
};

TESSERA_INLINE std::int64_t whole_panels(std::int64_t n) {
  return (n + kPanel - 1) / kPanel * kPanel;
}
template <class Scheme>
TESSERA_INLINE std::int64_t whole_lanes(std::int64_t n) {
  return (n + Scheme::kDepth - 1) / Scheme::kDepth * Scheme::kDepth;
}

template <class Scheme, class From>
TESSERA_INLINE void pack_rows_of_head(const KeyValueRows& rows, std::int64_t begin,
                                      std::int64_t end, std::int64_t width,
                                      typename Scheme::Number* keys,
                                      typename Scheme::Number* values) {
  const auto *k = static_cast<const From*>(rows.k), *v = static_cast<const From*>(rows.v);
  const std::int64_t padded = whole_panels(width), wide = whole_lanes<Scheme>(width);
  for (std::int64_t i = begin; i < end; i += kPanel)
    Scheme::pack_keys(k + i * rows.ldk, rows.ldk, end - i, width, keys + i * wide);
  for (std::int64_t i = begin; i < end; i += Scheme::kDepth)
    Scheme::pack_values(v + i * rows.ldv, rows.ldv, end - i, width, padded, values + i * padded);
}

template <class Scheme>
void pack_head(const KeyValueRows& rows, std::int64_t begin, std::int64_t end, std::int64_t width,
               void* keys, void* values, float* = nullptr) {
  typedef typename Scheme::Number Number;
  auto *to_keys = static_cast<Number*>(keys), *to_values = static_cast<Number*>(values);
  if (rows.half) {
    pack_rows_of_head<Scheme, std::uint16_t>(rows, begin, end, width, to_keys, to_values);
  } else {
    pack_rows_of_head<Scheme, float>(rows, begin, end, width, to_keys, to_values);
  }
}

constexpr float kMissing = -1e30f;  // score of keys that are not seen

/// Scores of keys from number `from` on, of which the first `seen` count; the others very negative.
TESSERA_INLINE Vec masked(Vec scores, std::int64_t from, std::int64_t seen) {
  alignas(64) static constexpr std::int32_t kLaneNumbers[] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                              8, 9, 10, 11, 12, 13, 14, 15};
  const IntVec there =
      load_as<IntVec>(kLaneNumbers) < static_cast<std::int32_t>(seen - from) - IntVec{};
  return there ? scores : splat(kMissing);
}

static_assert(kRows <= kLanes);
/// The largest of each vector, in lanes of one.
TESSERA_INLINE Vec largest_of_rows(const Vec (&rows)[kRows]) {
#if TESSERA_VECTOR_BYTES == 64 && TESSERA_TILE_ROWS == 12
  constexpr __mmask16 kAll = 0xffff;
  __m512 fours[3];  // rows 4 i to 4 i + 3 in each part of four lanes
#pragma GCC unroll 3
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto of_two = [](Vec a, Vec b) {
      return (__m512d)_mm512_maskz_max_ps(kAll,
                                          _mm512_maskz_unpacklo_ps(kAll, (__m512)a, (__m512)b),
                                          _mm512_maskz_unpackhi_ps(kAll, (__m512)a, (__m512)b));
    };
    const __m512d a = of_two(rows[4 * i], rows[4 * i + 1]),
                  b = of_two(rows[4 * i + 2], rows[4 * i + 3]);
    fours[i] = _mm512_maskz_max_ps(kAll, (__m512)_mm512_maskz_unpacklo_pd(255, a, b),
                                   (__m512)_mm512_maskz_unpackhi_pd(255, a, b));
  }
  const auto of_halves = [](__m512 a, __m512 b) {
    return _mm512_maskz_max_ps(kAll, _mm512_maskz_shuffle_f32x4(kAll, a, b, 0x44),
                               _mm512_maskz_shuffle_f32x4(kAll, a, b, 0xee));
  };
  const __m512 a = of_halves(fours[0], fours[1]), b = of_halves(fours[2], fours[2]);
  return (Vec)_mm512_maskz_max_ps(kAll, _mm512_maskz_shuffle_f32x4(kAll, a, b, 0x88),
                                  _mm512_maskz_shuffle_f32x4(kAll, a, b, 0xdd));
#else
  Vec largest{};
  for (std::int64_t r = 0; r < kRows; ++r) largest[r] = max_of(rows[r]);
  return largest;
#endif
}

/// A group of rows that will be needed, if any.
struct RowsAhead {
  const float* first;
  std::int64_t ld;
};
/// Asks memory for some of them, with the panel of keys from j on of a block: they lie far apart,
/// each a wait by itself.
TESSERA_INLINE void ask_ahead(const RowsAhead (&ahead)[2], std::int64_t j, std::int64_t width) {
  for (std::int64_t r = j / kPanel; r < kRows; r += kKeyBlock / kPanel)
    for (const auto& [first, ld] : ahead)
      if (first) prefetch_row(first + r * ld, width);
}

/// Takes groups of kRows queries through the blocks of keys that they see: start(group), then
/// add(group, begin, count, ahead) for each block, then finish(group). While a group is computed,
/// the queries of the next one (that of the next block, too) and the places of its own results are
/// asked for.
template <class Start, class Add, class Finish>
TESSERA_INLINE void for_groups(const AttentionBlock& b, const Start& start, const Add& add,
                               const Finish& finish) {
  const std::int64_t groups = (b.rows + kRows - 1) / kRows;
  const auto seen_by = [&](std::int64_t group) {
    const std::int64_t last = b.first + (group + 1) * kRows - 1;
    return b.causal && last < b.keys ? last : b.keys;
  };
  const std::int64_t all = seen_by(groups - 1);
  for (std::int64_t begin = 0; begin < all; begin += kKeyBlock) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = g * kRows, left = seen_by(g) - begin;
      if (left <= 0) continue;
      const bool ends = left <= kKeyBlock;
      if (begin == 0) start(g);
      const RowsAhead ahead[2] = {{begin == 0 ? b.q + (first + kRows) * b.ldq : nullptr, b.ldq},
                                  {ends ? b.out + first * b.ldo : nullptr, b.ldo}};
      add(g, begin, ends ? left : kKeyBlock, ahead);
      if (ends) finish(g);
    }
  }
}

/// Zeros in place of weights that are dropped; the stream begins at the first.
template <class Number>
TESSERA_INLINE void drop_weights(Number* row, std::uint64_t stream, std::uint64_t least,
                                 std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j)
    row[j] = mixed(stream + static_cast<std::uint64_t>(j)) >> 11 < least ? Number{} : row[j];
}

/// What is known so far of a group of kRows queries.
struct RowGroup {
  float best[kLanes];           // largest score
  float total[kRows * kLanes];  // sums of weights relative to it, lane by lane
};

/// sums += rows of words (row_step apart) times kVectors vectors of each step (ldb apart).
template <bool kPairs, std::int64_t kVectors>
TESSERA_INLINE void add_products(Vec (&sums)[kRows][kVectors], const float* a,
                                 std::int64_t row_step, const float* b, std::int64_t ldb,
                                 std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i, b += ldb) {
    Vec column[kVectors];
    for (std::int64_t v = 0; v < kVectors; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t v = 0; v < kVectors; ++v)
        sums[r][v] = add_words<kPairs>(sums[r][v], a + r * row_step + i, column[v]);
    }
  }
}

/// Scores of a group of queries (rows of `words`) and kVectors vectors of keys; the largest so far
/// of each row's lanes. kMasks: row r sees seen + r * more of these keys.
template <class Scheme, std::int64_t kVectors, bool kMasks>
TESSERA_INLINE void score_tile(const float* q, std::int64_t words, const float* keys,
                               std::int64_t seen, std::int64_t more, float* scores,
                               Vec (&high)[kRows]) {
  Vec sums[kRows][kVectors] = {};
  add_products<Scheme::kDepth == 2>(sums, q, words, keys, kPanel, words);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t v = 0; v < kVectors; ++v) {
      const Vec s = kMasks ? masked(sums[r][v], v * kLanes, seen + r * more) : sums[r][v];
      store(scores + r * kKeyBlock + v * kLanes, s);
      high[r] = larger(s, high[r]);
    }
  }
}

/// Scores [kRows][count] of whole vectors -> weights relative to the largest, as Numbers at the
/// beginning of their row; adds them to the rows' totals, which count `before` times.
template <class Scheme>
TESSERA_INLINE void weigh(float* scores, std::int64_t count, const float* before, RowGroup& rows) {
  for (std::int64_t r = 0; r < kRows; ++r) {
    float* row = scores + r * kKeyBlock;
    auto* weights = reinterpret_cast<typename Scheme::Number*>(row);
    const Vec best = splat(rows.best[r]);
    Vec sums{}, more{};
    const auto weight = [&](std::int64_t j) {
      const Vec w = Scheme::exponential(load(row + j) - best);
      Scheme::put(weights, j, w);  // never before what is still to be read
      return w;
    };
    std::int64_t j = 0;
    for (; j + kPanel <= count; j += kPanel) {
      sums += weight(j);
      more += weight(j + kLanes);
    }
    if (j < count) sums += weight(j);
    float* total = rows.total + r * kLanes;
    store(total, load(total) * before[r] + (sums + more));
  }
}

/// out [kRows, padded] = out * before + weights * values; before the first values, out is nothing.
template <class Scheme>
TESSERA_INLINE void add_values(const float* weights, const float* values, std::int64_t count,
                               std::int64_t padded, bool first, const float* before, float* out) {
  for (std::int64_t c = 0; c < padded; c += kPanel) {
    Vec sums[kRows][2] = {};
    if (!first) {
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < kRows; ++r) {
        sums[r][0] = load(out + r * padded + c) * before[r];
        sums[r][1] = load(out + r * padded + c + kLanes) * before[r];
      }
    }
    add_products<Scheme::kDepth == 2>(sums, weights, kKeyBlock, values + c, padded,
                                      (count + Scheme::kDepth - 1) / Scheme::kDepth);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      store(out + r * padded + c, sums[r][0]);
      store(out + r * padded + c + kLanes, sums[r][1]);
    }
  }
}

/// A group of rows and the keys [begin, begin + count), which the last of them sees.
template <class Scheme, bool kDrops>
TESSERA_INLINE void add_block(const AttentionBlock& b, std::int64_t group, std::int64_t begin,
                              std::int64_t count, const RowsAhead (&ahead)[2], const float* q,
                              float* scores, RowGroup& rows, float* out) {
  typedef typename Scheme::Number Number;
  const std::int64_t padded = whole_panels(b.width),
                     words = whole_lanes<Scheme>(b.width) / Scheme::kDepth;
  const float* keys = static_cast<const float*>(b.head.keys) + begin * words;
  Vec high[kRows];
  for (Vec& v : high) v = splat(kMissing);
  // Of the first row, and how many each other one sees more than the one before.
  const std::int64_t seen = b.causal ? b.first + group * kRows - begin : count;
  const std::int64_t more = b.causal ? 1 : 0;
  for (std::int64_t j = 0; j < count; j += kPanel) {
    ask_ahead(ahead, j, b.width);
    const float* panel = keys + j * words;
    if (j + kPanel <= seen) {
      score_tile<Scheme, 2, false>(q, words, panel, 0, 0, scores + j, high);
    } else if (count - j > kLanes) {
      score_tile<Scheme, 2, true>(q, words, panel, seen - j, more, scores + j, high);
    } else {
      score_tile<Scheme, 1, true>(q, words, panel, seen - j, more, scores + j, high);
    }
  }
  float before[kLanes];
  const Vec past = load(rows.best), best = larger(largest_of_rows(high), past);
  store(before, Scheme::exponential(past - best));
  store(rows.best, best);
  weigh<Scheme>(scores, (count + kLanes - 1) / kLanes * kLanes, before, rows);
  if constexpr (kDrops) {
    for (std::int64_t r = 0; r < kRows; ++r) {
      drop_weights(
          reinterpret_cast<Number*>(scores + r * kKeyBlock),
          b.dropped.stream + static_cast<std::uint64_t>((group * kRows + r) * b.keys + begin),
          b.dropped.least, seen + r * more < count ? seen + r * more : count);
    }
  }
  add_values<Scheme>(scores,
                     static_cast<const float*>(b.head.values) + begin / Scheme::kDepth * padded,
                     count, padded, begin == 0, before, out);
}

template <class Scheme>
TESSERA_INLINE void start_rows(const AttentionBlock& b, std::int64_t first,
                               typename Scheme::Number* q, RowGroup& rows) {
  const std::int64_t wide = whole_lanes<Scheme>(b.width);
  for (std::int64_t r = 0; r < kRows; ++r) {
    Scheme::scale_row(first + r < b.rows ? b.q + (first + r) * b.ldq : nullptr,
                      b.scale * Scheme::kScale, b.width, q + r * wide);
  }
  for (std::int64_t r = 0; r < kLanes; ++r) rows.best[r] = kMissing;
  for (std::int64_t i = 0; i < kRows * kLanes; ++i) rows.total[i] = 0;
}

/// What a group of rows gives in the end.
template <class Scheme, bool kDrops>
TESSERA_INLINE void finish_rows(const AttentionBlock& b, std::int64_t first, const RowGroup& rows,
                                const float* sums) {
  const std::int64_t padded = whole_panels(b.width);
  for (std::int64_t r = 0; r < kRows && first + r < b.rows; ++r) {
    const float total = quick_sum_of(load(rows.total + r * kLanes));
    if (b.lse) {
      b.lse[(first + r) * b.ld_lse] =
          rows.best[r] * (1.0f / Scheme::kScale) + __builtin_logf(total);
    }
    const float inverse = (kDrops ? b.dropped.scale : 1.0f) / total;
    float* out = b.out + (first + r) * b.ldo;
    for (std::int64_t c = 0; c < b.width; ++c) out[c] = sums[r * padded + c] * inverse;
  }
}

template <class Scheme, bool kDrops>
void attention_block(const AttentionBlock& b) {
  typedef typename Scheme::Number Number;
  const std::int64_t padded = whole_panels(b.width), wide = whole_lanes<Scheme>(b.width);
  alignas(64) RowGroup rows[kQueryBlock / kRows];
  float *scores = b.scratch, *out = scores + kRows * kKeyBlock;
  auto* q = reinterpret_cast<Number*>(out + kQueryBlock * padded);
  for_groups(
      b, [&](std::int64_t g) { start_rows<Scheme>(b, g * kRows, q + g * kRows * wide, rows[g]); },
      [&](std::int64_t g, std::int64_t begin, std::int64_t count, const RowsAhead(&ahead)[2]) {
        add_block<Scheme, kDrops>(b, g, begin, count, ahead,
                                  reinterpret_cast<const float*>(q + g * kRows * wide), scores,
                                  rows[g], out + g * kRows * padded);
      },
      [&](std::int64_t g) {
        finish_rows<Scheme, kDrops>(b, g * kRows, rows[g], out + g * kRows * padded);
      });
}

}  // namespace
}  // namespace tessera::kernels
