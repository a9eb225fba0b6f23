// Attention in blocks in integers of 8 and of 12 bits, after SageAttention (Zhang et al. 2024,
// arXiv 2410.02367); see vector.h.
#pragma once
#include "core/kernels/attention_scores_impl.h"
#include "core/kernels/finish_impl.h"
#include "core/kernels/integer_impl.h"
#include "core/kernels/product_impl.h"

namespace tessera::kernels {
namespace {

/// 8 bits: keys have 128 added and weights have no sign.
struct InBytes {
  typedef std::uint8_t Number;
  typedef ShortScores Scores;
  static constexpr std::int64_t kDepth = 4;  // numbers side by side in a lane
  static constexpr float kMost = 127.0f;
  static constexpr std::int32_t kKeyOffset = 128;

  TESSERA_INLINE static void put(Number* to, IntVec v) {
    const QuarterByteVec bytes = low_bytes(v);
    __builtin_memcpy(to, &bytes, sizeof bytes);
  }
  /// sums + the products of a lane, of numbers without a sign and numbers with one.
  TESSERA_INLINE static IntVec add(IntVec sums, IntVec plain, IntVec with_sign) {
#ifdef TESSERA_MULTIPLIES_BYTES
    return add_fours_of_bytes(sums, plain, with_sign);
#else
    for (int shift = 0; shift < 32; shift += 8)
      sums += ((plain >> shift) & 255) * ((with_sign << (24 - shift)) >> 24);
    return sums;
#endif
  }
};

/// 12 bits: as many as leave room for sums of kKeyBlock values times weights, and of the widest
/// head's queries times keys, in 32.
struct InShorts {
  typedef std::int16_t Number;
  typedef FloatScores Scores;
  static constexpr std::int64_t kDepth = 2;
  static constexpr float kMost = 2047.0f;
  static constexpr std::int32_t kKeyOffset = 0;

  TESSERA_INLINE static void put(Number* to, IntVec v) {
    const HalfShortVec shorts = low_shorts(v);
    __builtin_memcpy(to, &shorts, sizeof shorts);
  }
  TESSERA_INLINE static IntVec add(IntVec sums, IntVec a, IntVec b) {
    return add_pairs_of_shorts(sums, a, b);
  }
};
static_assert(float{kKeyBlock} * InShorts::kMost * FloatScores::kMostWeight < 0x7fffffff &&
              float{kWidestIntegerHead} * InShorts::kMost * InShorts::kMost < 0x7fffffff &&
              float{kWidestIntegerHead} * InBytes::kMost * 128.0f <= 0x400000);

/// A vector of numbers, of which n are there.
template <class From>
TESSERA_INLINE Vec load_most(const From* p, std::int64_t n) {
  if (n >= kLanes) return numbers_at(p);
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = number_at(p + i);
  return v;
}

/// Of `count` rows and the columns of kCount vectors, of which n are there: their means and the
/// largest distances from these.
template <std::int64_t kCount, class From>
TESSERA_INLINE void measure_columns(const From* x, std::int64_t ld, std::int64_t count,
                                    std::int64_t n, float* means, float* reaches) {
  Vec sum[kCount], high[kCount], low[kCount];
  for (std::int64_t c = 0; c < kCount; ++c)
    sum[c] = Vec{}, high[c] = splat(-__builtin_inff()), low[c] = splat(__builtin_inff());
  for (std::int64_t i = 0; i < count; ++i, x += ld) {
#pragma GCC unroll 4
    for (std::int64_t c = 0; c < kCount; ++c) {
      const Vec v = kCount > 1 ? numbers_at(x + c * kLanes) : load_most(x, n);
      sum[c] += v;
      high[c] = larger(v, high[c]);
      low[c] = v < low[c] ? v : low[c];
    }
  }
  for (std::int64_t c = 0; c < kCount; ++c) {
    const Vec mean = sum[c] * (1.0f / static_cast<float>(count));
    store(means + c * kLanes, mean);
    if (reaches) store(reaches + c * kLanes, larger(high[c] - mean, mean - low[c]));
  }
}

template <class Scheme, class From>
TESSERA_INLINE void measure_rows(const KeyValueRows& rows, std::int64_t keys, std::int64_t width,
                                 float* units) {
  const auto *k = static_cast<const From*>(rows.k), *v = static_cast<const From*>(rows.v);
  const std::int64_t padded = whole_panels(width);
  const std::int64_t step = key_mean_step(keys), some = (keys + step - 1) / step;
  float *value_means = units + padded, *value_units = value_means + padded;
  const auto measure = [&]<std::int64_t kCount>(std::int64_t c) {
    measure_columns<kCount>(k + c, step * rows.ldk, some, width - c, units + c, nullptr);
    measure_columns<kCount>(v + c, rows.ldv, keys, width - c, value_means + c, value_units + c);
  };
  std::int64_t c = 0;
  for (; c + 4 * kLanes <= width; c += 4 * kLanes) measure.template operator()<4>(c);
  for (; c < width; c += kLanes) measure.template operator()<1>(c);
  for (; c < padded; c += kLanes)
    for (std::int64_t i = 0; i < 3; ++i) store(units + i * padded + c, Vec{});
  for (c = 0; c < padded; c += kLanes)
    store(value_units + c, load(value_units + c) * (1.0f / Scheme::kMost));
}

template <class Scheme>
void measure_head(const KeyValueRows& rows, std::int64_t keys, std::int64_t width, float* units) {
  if (rows.half) return measure_rows<Scheme, std::uint16_t>(rows, keys, width, units);
  measure_rows<Scheme, float>(rows, keys, width, units);
}

/// A panel of keys, `count` of which are there.
template <class Scheme, class From>
void pack_keys(const From* k, std::int64_t ldk, std::int64_t count, std::int64_t width,
               const float* means, typename Scheme::Number* panel, float* units) {
  constexpr std::int64_t kLane = Scheme::kDepth;
  const std::int64_t wide = whole_lanes<Scheme>(width), words = wide / kLane;
  alignas(64) float row[kWidestIntegerHead];
  alignas(64) float rows[kPanel * kWidestIntegerHead / kLane];  // whose numbers are these words
  const auto put = [&](std::int64_t at, std::int32_t n) {
    const auto number = static_cast<typename Scheme::Number>(n + Scheme::kKeyOffset);
    __builtin_memcpy(reinterpret_cast<char*>(rows) + at * std::int64_t{sizeof number}, &number,
                     sizeof number);
  };
  for (std::int64_t j = 0; j < kPanel; ++j) {
    if (j >= count) {
      units[j] = 0;
      for (std::int64_t c = 0; c < words; ++c) rows[j * words + c] = 0;
      continue;
    }
    for (std::int64_t c = 0; c < width; ++c) row[c] = number_at(k + j * ldk + c) - means[c];
    units[j] = quantize_numbers(
        row, width, wide, Scheme::kMost,
        [&](std::int64_t i, IntVec v) {
          Scheme::put(reinterpret_cast<typename Scheme::Number*>(rows) + j * wide + i,
                      v + Scheme::kKeyOffset);
        },
        [&](std::int64_t i, std::int32_t n) { put(j * wide + i, n); });
  }
  turn_panel(rows, words, words, reinterpret_cast<float*>(panel));
}

/// A lane's rows of values, `count` of which are there.
template <class Scheme, class From>
TESSERA_INLINE void pack_values(const From* v, std::int64_t ldv, std::int64_t count,
                                std::int64_t width, const float* means, const float* inverse,
                                typename Scheme::Number* to) {
  constexpr std::int32_t kBits = 32 / Scheme::kDepth, kMask = (1 << kBits) - 1;
  const Vec round = splat(kIntegersFrom);
  for (std::int64_t c = 0; c < whole_panels(width); c += kLanes) {
    IntVec lanes{};
    for (std::int64_t i = 0; i < count && c < width; ++i) {
      const Vec near =
          (load_most(v + i * ldv + c, width - c) - load(means + c)) * load(inverse + c) + round;
      lanes |= ((IntVec)near & kMask) << (kBits * static_cast<std::int32_t>(i));
    }
    __builtin_memcpy(to + c * Scheme::kDepth, &lanes, sizeof lanes);
  }
}

template <class Scheme, class From>
TESSERA_INLINE void pack_integer_rows(const KeyValueRows& rows, std::int64_t begin,
                                      std::int64_t end, std::int64_t width, void* keys,
                                      void* values, float* units) {
  typedef typename Scheme::Number Number;
  const auto *k = static_cast<const From*>(rows.k), *v = static_cast<const From*>(rows.v);
  const std::int64_t padded = whole_panels(width), wide = whole_lanes<Scheme>(width);
  auto *to_keys = static_cast<Number*>(keys), *to_values = static_cast<Number*>(values);
  for (std::int64_t i = begin; i < end; i += kPanel) {
    pack_keys<Scheme>(k + i * rows.ldk, rows.ldk, end - i, width, units, to_keys + i * wide,
                      units + 3 * padded + i);
  }
  alignas(64) float inverse[kWidestIntegerHead];
  for (std::int64_t c = 0; c < padded; c += kLanes) {
    const Vec unit = load(units + 2 * padded + c);
    store(inverse + c, unit > 1e-30f ? 1.0f / unit : Vec{});
  }
  for (std::int64_t i = begin; i < end; i += Scheme::kDepth) {
    pack_values<Scheme>(v + i * rows.ldv, rows.ldv,
                        end - i < Scheme::kDepth ? end - i : Scheme::kDepth, width, units + padded,
                        inverse, to_values + i * padded);
  }
}

template <class Scheme>
void pack_integers(const KeyValueRows& rows, std::int64_t begin, std::int64_t end,
                   std::int64_t width, void* keys, void* values, float* units) {
  if (rows.half)
    return pack_integer_rows<Scheme, std::uint16_t>(rows, begin, end, width, keys, values, units);
  pack_integer_rows<Scheme, float>(rows, begin, end, width, keys, values, units);
}

/// sums += rows (row_step numbers apart) times a panel, [steps][panel][kDepth] (ldb numbers from
/// one step to the next).
template <class Scheme, bool kRowsHaveSign>
TESSERA_INLINE void add_tile(IntVec (&sums)[kRows][2], const typename Scheme::Number* a,
                             std::int64_t row_step, const typename Scheme::Number* b,
                             std::int64_t ldb, std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i, b += ldb) {
    const IntVec b0 = load_as<IntVec>(b), b1 = load_as<IntVec>(b + Scheme::kDepth * kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const IntVec x = splat_word(a + r * row_step + Scheme::kDepth * i);
      sums[r][0] = kRowsHaveSign ? Scheme::add(sums[r][0], b0, x) : Scheme::add(sums[r][0], x, b0);
      sums[r][1] = kRowsHaveSign ? Scheme::add(sums[r][1], b1, x) : Scheme::add(sums[r][1], x, b1);
    }
  }
}

/// A group of kRows queries and what is known of them so far.
template <class Scheme>
struct IntegerGroup : RowsSoFar {
  typename Scheme::Number q[kRows * kWidestIntegerHead];  // [kRows][whole lanes], with a sign
  std::int32_t start[kRows];                              // of sums
};

/// The sum of bytes with a sign.
TESSERA_INLINE std::int32_t sum_of_bytes(const std::uint8_t* q, std::int64_t count) {
  std::int32_t sum = 0;
  if (kDepth == 4) {  // as rows of products lie
    sum_groups(q, count, count, &sum);
  } else {
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<std::int8_t>(q[i]);
  }
  return sum;
}
/// Where a row's sums begin. In bytes: at the bits of a float, which saves converting them, less
/// what the keys' offset adds.
TESSERA_INLINE std::int32_t start_of_sums(const std::uint8_t* q, std::int64_t count) {
  return __builtin_bit_cast(std::int32_t, kIntegersFrom) -
         InBytes::kKeyOffset * sum_of_bytes(q, count);
}
TESSERA_INLINE std::int32_t start_of_sums(const std::int16_t*, std::int64_t) { return 0; }

template <class Scheme>
void start_rows(const AttentionBlock& b, std::int64_t first, IntegerGroup<Scheme>& rows) {
  typedef typename Scheme::Number Number;
  const std::int64_t wide = whole_lanes<Scheme>(b.width);
  for (std::int64_t r = 0; r < kLanes; ++r) rows.best[r] = kMissing, rows.unit[r] = 0;
  for (std::int64_t i = 0; i < kRows * kLanes; ++i) rows.total[i] = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    Number* q = rows.q + r * wide;
    const bool there = first + r < b.rows;
    const float unit = quantize_numbers(
        b.q + (there ? first + r : 0) * b.ldq, there ? b.width : 0, wide, Scheme::kMost,
        [&](std::int64_t i, IntVec v) { Scheme::put(q + i, v); },
        [&](std::int64_t i, std::int32_t n) { q[i] = static_cast<Number>(n); });
    rows.start[r] = start_of_sums(q, wide);
    // At least so much that kMissing counts.
    const float scaled = unit * b.scale * kLog2E;
    rows.unit[r] = scaled < 1e-20f ? 1e-20f : scaled;
  }
}

/// Scores of a group of queries and the panel of keys from j on of a block.
template <class Scheme, bool kMasks>
TESSERA_INLINE void score_tile(const IntegerGroup<Scheme>& rows, std::int64_t wide,
                               const typename Scheme::Number* panel, const float* units,
                               const SeenKeys& seen, std::int64_t j,
                               typename Scheme::Scores& scores) {
  IntVec sums[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = rows.start[r] - IntVec{};
  add_tile<Scheme, true>(sums, rows.q, wide, panel, Scheme::kDepth * kPanel, wide / Scheme::kDepth);
  scores.template put<kMasks>(j, sums, units, seen);
}

/// out [kRows, padded] = out * before + weights * values * own.
template <class Scheme>
TESSERA_INLINE void add_values(const typename Scheme::Number* weights,
                               const typename Scheme::Number* values, std::int64_t count,
                               std::int64_t padded, const BlockFactors& f, float* out) {
  constexpr std::int64_t kLane = Scheme::kDepth;
  for (std::int64_t c = 0; c < padded; c += kPanel) {
    IntVec sums[kRows][2] = {};
    add_tile<Scheme, false>(sums, weights, kKeyBlock, values + c * kLane, padded * kLane,
                            (count + kLane - 1) / kLane);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      float* to = out + r * padded + c;
      store(to, load(to) * f.before[r] + to_float(sums[r][0]) * f.own[r]);
      store(to + kLanes, load(to + kLanes) * f.before[r] + to_float(sums[r][1]) * f.own[r]);
    }
  }
}

/// A group of rows and the keys [begin, begin + count), which the last of them sees.
template <class Scheme>
TESSERA_INLINE void add_block(const AttentionBlock& b, std::int64_t group, std::int64_t begin,
                              std::int64_t count, const RowsAhead (&ahead)[2],
                              IntegerGroup<Scheme>& rows, float* out) {
  typedef typename Scheme::Number Number;
  const std::int64_t padded = whole_panels(b.width), wide = whole_lanes<Scheme>(b.width);
  const auto* keys = static_cast<const Number*>(b.head.keys) + begin * wide;
  const float* units = b.head.units + 3 * padded + begin;
  typename Scheme::Scores scores;
  alignas(64) Number weights[kRows * kKeyBlock];
  SeenKeys seen{count, count, 0};
  if (b.causal) seen.first = b.first + group * kRows - begin, seen.more = 1;
  scores.start(units, count, wide);
  for (std::int64_t j = 0; j < count; j += kPanel) {
    ask_ahead(ahead, j, b.width);
    const Number* panel = keys + j * wide;
    if (j + kPanel > seen.first) {
      score_tile<Scheme, true>(rows, wide, panel, units + j, seen, j, scores);
    } else {
      score_tile<Scheme, false>(rows, wide, panel, units + j, seen, j, scores);
    }
  }
  scores.find_factors(seen, rows);
  scores.weigh(seen, rows, weights);
  add_values<Scheme>(weights, static_cast<const Number*>(b.head.values) + begin * padded, count,
                     padded, scores.factors, out);
}

/// What a group of rows gives in the end.
template <class Scheme>
TESSERA_INLINE void finish_rows(const AttentionBlock& b, std::int64_t first,
                                const IntegerGroup<Scheme>& rows, const float* sums) {
  const std::int64_t padded = whole_panels(b.width);
  const float *value_means = b.head.units + padded, *value_units = value_means + padded;
  for (std::int64_t r = 0; r < kRows && first + r < b.rows; ++r) {
    const float inverse =
        Scheme::Scores::kWeightUnits / quick_sum_of(load(rows.total + r * kLanes));
    float* out = b.out + (first + r) * b.ldo;
    for (std::int64_t c = 0; c < b.width; ++c)
      out[c] = sums[r * padded + c] * inverse * value_units[c] + value_means[c];
  }
}

template <class Scheme>
void integer_attention_block(const AttentionBlock& b) {
  const std::int64_t padded = whole_panels(b.width);
  const std::int64_t groups = (b.rows + kRows - 1) / kRows;
  alignas(64) IntegerGroup<Scheme> rows[kQueryBlock / kRows];
  float* sums = b.scratch;
  for (std::int64_t i = 0; i < groups * kRows * padded; ++i) sums[i] = 0.0f;
  for_groups(
      b, [&](std::int64_t g) { start_rows(b, g * kRows, rows[g]); },
      [&](std::int64_t g, std::int64_t begin, std::int64_t count, const RowsAhead(&ahead)[2]) {
        add_block(b, g, begin, count, ahead, rows[g], sums + g * kRows * padded);
      },
      [&](std::int64_t g) { finish_rows(b, g * kRows, rows[g], sums + g * kRows * padded); });
}

}  // namespace
}  // namespace tessera::kernels
