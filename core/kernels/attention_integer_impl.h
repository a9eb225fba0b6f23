// Attention in blocks in integers of 8 and of 12 bits, after SageAttention (Zhang et al. 2024,
// arXiv 2410.02367); see vector.h.
#pragma once
#include "core/kernels/attention_impl.h"
#include "core/kernels/finish_impl.h"
#include "core/kernels/integer_impl.h"
#include "core/kernels/product_impl.h"

namespace tessera::kernels {
namespace {

/// 8 bits: keys have 128 added and weights have no sign.
struct InBytes {
  typedef std::uint8_t Number;
  static constexpr std::int64_t kDepth = 4;  // numbers side by side in a lane
  static constexpr float kMost = 127.0f, kMostWeight = 255.0f;
  static constexpr std::int32_t kKeyOffset = 128;
  /// Where sums of scores begin: their bits are those of floats, which saves converting them.
  static constexpr float kSumsFrom = kIntegersFrom;
  /// What a weight's unit is of what totals are made of, which is found by a polynomial of a
  /// degree.
  static constexpr int kWeightUnits = 128, kWeightDegree = 2;

  TESSERA_INLINE static Vec sums_as_floats(IntVec sums) { return (Vec)sums; }
  TESSERA_INLINE static void put(Number* to, IntVec v) {
    const QuarterByteVec bytes = low_bytes(v);
    __builtin_memcpy(to, &bytes, sizeof bytes);
  }
  /// sums + the products of a lane, of numbers without a sign and numbers with one.
  TESSERA_INLINE static IntVec add(IntVec sums, IntVec plain, IntVec with_sign) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
    return (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)plain, (__m512i)with_sign);
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
  static constexpr std::int64_t kDepth = 2;
  static constexpr float kMost = 2047.0f, kMostWeight = 4095.0f;
  static constexpr std::int32_t kKeyOffset = 0;
  static constexpr float kSumsFrom = 0.0f;
  static constexpr int kWeightUnits = 8, kWeightDegree = 3;

  TESSERA_INLINE static Vec sums_as_floats(IntVec sums) { return to_float(sums); }
  TESSERA_INLINE static void put(Number* to, IntVec v) {
    const HalfShortVec shorts = low_shorts(v);
    __builtin_memcpy(to, &shorts, sizeof shorts);
  }
  TESSERA_INLINE static IntVec add(IntVec sums, IntVec a, IntVec b) {
    return add_pairs_of_shorts(sums, a, b);
  }
};
static_assert(float{kKeyBlock} * InShorts::kMost * InShorts::kMostWeight < 0x7fffffff &&
              float{kWidestIntegerHead} * InShorts::kMost * InShorts::kMost < 0x7fffffff &&
              float{kWidestIntegerHead} * InBytes::kMost * 128.0f <= 0x400000);

/// 2^x for x <= 0 to a relative error of 1e-4.
TESSERA_INLINE Vec power_of_two(Vec x) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  const Vec f = above_floor(x);
  const Vec p = ((f * 0.07802452f + 0.22606716f) * f + 0.69583354f) * f + 0.99992522f;
  return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)x);
#else
  return exp_negative_coarse(x * 0.69314718056f);
#endif
}

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
      units[j] = 0, units[kPanel + j] = kMissing;
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
    units[kPanel + j] = -Scheme::kSumsFrom * units[j];
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
                      units + 3 * padded + 2 * i);
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

/// Of differences of scores, as they are made to weights: parts of powers of 2.
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
constexpr float kUnits = 2048.0f;
#else
constexpr float kUnits = 1.0f;
#endif

/// A group of kRows queries and what is known of them so far.
template <class Scheme>
struct IntegerGroup {
  typename Scheme::Number q[kRows * kWidestIntegerHead];  // [kRows][whole lanes], with a sign
  std::int32_t start[kRows];    // of sums: takes off what the keys' offset adds to them
  float unit[kLanes];           // of scores, for powers of 2
  float slope[kLanes];          // the same in kUnits, negative
  float best[kLanes];           // running maximum, for powers of 2
  float total[kRows * kLanes];  // running sums of weights, lane by lane
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
TESSERA_INLINE std::int32_t start_of_sums(const std::uint8_t* q, std::int64_t count) {
  return __builtin_bit_cast(std::int32_t, InBytes::kSumsFrom) -
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
    rows.slope[r] = -kUnits * rows.unit[r];
  }
}

/// Scores of a group of queries and a panel of keys; the largest so far of each row's lanes.
/// kMasks: row r sees `seen` + r of these keys.
template <class Scheme, bool kMasks>
TESSERA_INLINE void score_tile(const IntegerGroup<Scheme>& rows, std::int64_t wide,
                               const typename Scheme::Number* keys, const float* units,
                               std::int64_t seen, float* scores, Vec (&high)[kRows]) {
  IntVec sums[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = rows.start[r] - IntVec{};
  add_tile<Scheme, true>(sums, rows.q, wide, keys, Scheme::kDepth * kPanel, wide / Scheme::kDepth);
  const Vec unit0 = load(units), unit1 = load(units + kLanes);
  const Vec more0 = load(units + kPanel), more1 = load(units + kPanel + kLanes);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    Vec s0 = Scheme::sums_as_floats(sums[r][0]) * unit0 + more0,
        s1 = Scheme::sums_as_floats(sums[r][1]) * unit1 + more1;
    if (kMasks) s0 = masked(s0, 0, seen + r), s1 = masked(s1, kLanes, seen + r);
    store(scores + r * kKeyBlock, s0);
    store(scores + r * kKeyBlock + kLanes, s1);
    high[r] = larger(larger(s0, s1), high[r]);
  }
}

/// What a block of keys changes for a group of rows: its largest scores (in kUnits), and factors of
/// what was summed before and of the block's own weights, which are relative to the largest.
struct BlockFactors {
  float largest[kLanes], before[kLanes], own[kLanes];
};
template <class Scheme>
TESSERA_INLINE void find_factors(const Vec (&high)[kRows], IntegerGroup<Scheme>& rows,
                                 BlockFactors& f) {
  const Vec least = splat(0.1f * kMissing);  // where a row sees none: more than its scores
  const Vec own = larger(largest_of_rows(high), least) * load(rows.unit), before = load(rows.best),
            best = larger(own, before);
  // Not below what is rounded otherwise: differences from it must not turn negative.
  store(f.largest, (own + positive(own) * 3e-7f) * kUnits);
  store(f.before, power_of_two(before - best));
  store(f.own, power_of_two(own - best));
  store(rows.best, best);
}

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
/// (a * b) >> 16 of numbers without a sign.
TESSERA_INLINE __m512i high_half(__m512i a, __m512i b) {
  return _mm512_maskz_mulhi_epu16(~0u, a, b);
}
/// 2^-t of 32 numbers t >= 0 of 16 bits, in kUnits. What is 16 or more may have turned
/// negative: either way it becomes 0.
template <class Scheme>
TESSERA_INLINE __m512i short_weights(__m512i t) {
  // 2^-f of t less its whole part, 0 <= f < 1: a - f * (b - f * (c - f * d)), in 65536ths but for a
  const auto number = [](float x) { return _mm512_set1_epi16(static_cast<std::int16_t>(x)); };
  constexpr float kOne = Scheme::kMostWeight * Scheme::kWeightUnits;
  const __m512i f = _mm512_slli_epi16(t, 5);
  __m512i p = _mm512_setzero_si512();
  if constexpr (Scheme::kWeightDegree == 3) {
    p = number(0.03901226f * kOne);
    p = _mm512_sub_epi16(number(0.23007037f * kOne), high_half(f, p));
    p = _mm512_sub_epi16(number(0.69102071f * kOne), high_half(f, p));
    p = _mm512_sub_epi16(number(0.99992522f * kOne), high_half(f, p));
  } else {
    p = number(0.16859472f * kOne);
    p = _mm512_sub_epi16(number(0.66600760f * kOne), high_half(f, p));
    p = _mm512_sub_epi16(number(0.99827525f * kOne), high_half(f, p));
  }
  return _mm512_srlv_epi16(p, _mm512_srli_epi16(t, 11));
}
/// The nearest of w / kUnits.
template <int kUnits>
TESSERA_INLINE __m512i divided(__m512i w) {
  return _mm512_maskz_mulhrs_epi16(~0u, w, _mm512_set1_epi16(32768 / kUnits));
}
/// Weights of 64 keys as they lie in memory, from what _mm512_packs_epi32() makes of their scores:
/// four numbers of one vector, four of the next.
TESSERA_INLINE void put_weights(__m512i first, __m512i second, std::uint8_t* to) {
  const __m512i fours = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0),
                bytes = _mm512_packus_epi16(divided<128>(first), divided<128>(second));
  _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(0xffff, fours, bytes));
}
TESSERA_INLINE void put_weights(__m512i first, __m512i second, std::int16_t* to) {
  const __m512i fours = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
  _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi64(0xff, fours, divided<8>(first)));
  _mm512_storeu_si512(to + kPanel, _mm512_maskz_permutexvar_epi64(0xff, fours, divided<8>(second)));
}

/// Scores [kRows][count], whole panels -> weights; adds them to the rows' totals.
template <class Scheme>
TESSERA_INLINE void weigh(const float* scores, std::int64_t count, const BlockFactors& f,
                          IntegerGroup<Scheme>& rows, typename Scheme::Number* weights) {
  for (std::int64_t r = 0; r < kRows; ++r) {
    const Vec slope = splat(rows.slope[r]), largest = splat(f.largest[r]);
    const float* row = scores + r * kKeyBlock;
    const auto weights_from = [&](std::int64_t j) {
      const Vec near = load(row + j) * slope + largest,
                far = load(row + j + kLanes) * slope + largest;
      return short_weights<Scheme>(
          _mm512_packs_epi32(_mm512_maskz_cvtps_epi32(0xffff, (__m512)near),
                             _mm512_maskz_cvtps_epi32(0xffff, (__m512)far)));
    };
    typename Scheme::Number* to = weights + r * kKeyBlock;
    const __m512i one = _mm512_set1_epi16(1);
    __m512i sums = _mm512_setzero_si512(), more = sums;
    std::int64_t j = 0;
    for (; j + 2 * kPanel <= count; j += 2 * kPanel) {
      const __m512i a = weights_from(j), b = weights_from(j + kPanel);
      sums = _mm512_dpwssd_epi32(sums, a, one);
      more = _mm512_dpwssd_epi32(more, b, one);
      put_weights(a, b, to + j);
    }
    if (j < count) {
      const __m512i a = weights_from(j);
      sums = _mm512_dpwssd_epi32(sums, a, one);
      put_weights(a, _mm512_setzero_si512(), to + j);
    }
    float* total = rows.total + r * kLanes;
    store(total, load(total) * f.before[r] + to_float((IntVec)sums + (IntVec)more) * f.own[r]);
  }
}
#else
/// Scores [kRows][count], whole panels -> weights; adds them to the rows' totals.
template <class Scheme>
TESSERA_INLINE void weigh(const float* scores, std::int64_t count, const BlockFactors& f,
                          IntegerGroup<Scheme>& rows, typename Scheme::Number* weights) {
  const Vec round = splat(kIntegersFrom);
  for (std::int64_t r = 0; r < kRows; ++r) {
    const Vec slope = splat(rows.slope[r]), largest = splat(f.largest[r]);
    const float* row = scores + r * kKeyBlock;
    Vec sums{};
    for (std::int64_t j = 0; j < count; j += kLanes) {
      const Vec w = power_of_two(-(load(row + j) * slope + largest));
      Scheme::put(weights + r * kKeyBlock + j, (IntVec)(w * Scheme::kMostWeight + round));
      sums += w * (Scheme::kMostWeight * Scheme::kWeightUnits);
    }
    float* total = rows.total + r * kLanes;
    store(total, load(total) * f.before[r] + sums * f.own[r]);
  }
}
#endif

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
  const float* units = b.head.units + 3 * padded + 2 * begin;
  alignas(64) float scores[kRows * kKeyBlock];
  alignas(64) Number weights[kRows * kKeyBlock];
  Vec high[kRows];
  for (Vec& v : high) v = splat(kMissing);
  const std::int64_t seen = b.causal ? b.first + group * kRows - begin : count;  // by its first row
  for (std::int64_t j = 0; j < count; j += kPanel) {
    ask_ahead(ahead, j, b.width);
    const Number* panel = keys + j * wide;
    if (b.causal && j + kPanel > seen) {
      score_tile<Scheme, true>(rows, wide, panel, units + 2 * j, seen - j, scores + j, high);
    } else {
      score_tile<Scheme, false>(rows, wide, panel, units + 2 * j, 0, scores + j, high);
    }
  }
  BlockFactors factors;
  find_factors(high, rows, factors);
  weigh(scores, whole_panels(count), factors, rows, weights);
  add_values<Scheme>(weights, static_cast<const Number*>(b.head.values) + begin * padded, count,
                     padded, factors, out);
}

/// What a group of rows gives in the end.
template <class Scheme>
TESSERA_INLINE void finish_rows(const AttentionBlock& b, std::int64_t first,
                                const IntegerGroup<Scheme>& rows, const float* sums) {
  const std::int64_t padded = whole_panels(b.width);
  const float *value_means = b.head.units + padded, *value_units = value_means + padded;
  for (std::int64_t r = 0; r < kRows && first + r < b.rows; ++r) {
    const float inverse = Scheme::kWeightUnits / quick_sum_of(load(rows.total + r * kLanes));
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
