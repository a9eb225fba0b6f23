// Scores of a group of queries and a block of keys, and the weights that they become, for attention
// in integers (attention_integer_impl.h).
#pragma once
#include "core/kernels/attention_impl.h"
#include "core/kernels/integer_impl.h"

namespace tessera::kernels {
namespace {

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

/// What is known so far of a group of kRows queries.
struct RowsSoFar {
  float unit[kLanes];           // of scores, for powers of 2
  float best[kLanes];           // largest score, for powers of 2
  float total[kRows * kLanes];  // sums of weights relative to it, lane by lane
};

/// How many of a block's `count` keys the rows of a group see: the first one `first`, each other
/// one `more` than the one before it.
struct SeenKeys {
  std::int64_t count, first, more;
  TESSERA_INLINE std::int64_t by(std::int64_t row) const {
    const std::int64_t seen = first + row * more;
    return seen < count ? seen : count;
  }
};

/// What a block of keys changes for a group of rows: factors of what was summed before and of the
/// block's own weights, which are relative to the block's largest score.
struct BlockFactors {
  float before[kLanes], own[kLanes];
  /// Of the block's largest scores, for powers of 2.
  TESSERA_INLINE void set(Vec largest, RowsSoFar& rows) {
    const Vec past = load(rows.best), best = larger(largest, past);
    store(before, power_of_two(past - best));
    store(own, power_of_two(largest - best));
    store(rows.best, best);
  }
  TESSERA_INLINE void add_to_total(Vec sums, std::int64_t row, RowsSoFar& rows) const {
    float* total = rows.total + row * kLanes;
    store(total, load(total) * before[row] + sums * own[row]);
  }
};

/// Scores of 12-bit numbers as floats; weights of 12 bits.
struct FloatScores {
  static constexpr float kMostWeight = 4095.0f;
  static constexpr int kWeightUnits = 8;  // a weight's unit is so many of a total's
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
  static constexpr float kUnits = 2048.0f;  // parts of powers of 2 that weights are made from
#else
  static constexpr float kUnits = 1.0f;
#endif

  alignas(64) float scores[kRows * kKeyBlock];
  Vec high[kRows];  // the largest of each row's lanes
  float largest[kLanes];
  BlockFactors factors;

  TESSERA_INLINE void start(const float*, std::int64_t, std::int64_t) {
    for (Vec& v : high) v = splat(kMissing);
  }
  /// The panel of keys from j on: sums of products times the keys' units.
  template <bool kMasks>
  TESSERA_INLINE void put(std::int64_t j, const IntVec (&sums)[kRows][2], const float* units,
                          const SeenKeys& seen) {
    const Vec unit0 = load(units), unit1 = load(units + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      Vec s0 = to_float(sums[r][0]) * unit0, s1 = to_float(sums[r][1]) * unit1;
      if (kMasks) s0 = masked(s0, 0, seen.by(r) - j), s1 = masked(s1, kLanes, seen.by(r) - j);
      store(scores + r * kKeyBlock + j, s0);
      store(scores + r * kKeyBlock + j + kLanes, s1);
      high[r] = larger(larger(s0, s1), high[r]);
    }
  }
  TESSERA_INLINE void find_factors(const SeenKeys&, RowsSoFar& rows) {
    const Vec least = splat(0.1f * kMissing);  // where a row sees none: more than its scores
    const Vec own = larger(largest_of_rows(high), least) * load(rows.unit);
    // Not below what is rounded otherwise: differences from it must not turn negative.
    store(largest, (own + positive(own) * 3e-7f) * kUnits);
    factors.set(own, rows);
  }

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
  /// 2^-t of 32 numbers t >= 0 of 16 bits, in kUnits. What is 16 or more may have turned
  /// negative: either way it becomes 0.
  TESSERA_INLINE static __m512i short_weights(__m512i t) {
    // 2^-f of t less its whole part, 0 <= f < 1: a - f * (b - f * (c - f * d)), f in 65536ths
    constexpr float kOne = kMostWeight * kWeightUnits;
    const auto number = [](float x) { return _mm512_set1_epi16(static_cast<std::int16_t>(x)); };
    const __m512i f = _mm512_slli_epi16(t, 5);
    const auto times = [&](__m512i p) { return _mm512_maskz_mulhi_epu16(~0u, f, p); };
    __m512i p = number(0.03901226f * kOne);
    p = _mm512_sub_epi16(number(0.23007037f * kOne), times(p));
    p = _mm512_sub_epi16(number(0.69102071f * kOne), times(p));
    p = _mm512_sub_epi16(number(0.99992522f * kOne), times(p));
    return _mm512_srlv_epi16(p, _mm512_srli_epi16(t, 11));
  }
  /// Weights of a panel as they lie in memory, from what _mm512_packs_epi32() makes of its scores:
  /// four numbers of one vector, four of the other.
  TESSERA_INLINE static void put_weights(__m512i w, std::int16_t* to) {
    const __m512i fours = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0),
                  rounded =
                      _mm512_maskz_mulhrs_epi16(~0u, w, _mm512_set1_epi16(32768 / kWeightUnits));
    _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi64(0xff, fours, rounded));
  }
  TESSERA_INLINE void weigh(const SeenKeys& seen, RowsSoFar& rows, std::int16_t* weights) {
    const __m512i one = _mm512_set1_epi16(1);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec slope = splat(-kUnits * rows.unit[r]), most = splat(largest[r]);
      const float* row = scores + r * kKeyBlock;
      __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      for (std::int64_t j = 0; j < seen.count; j += kPanel) {
        const Vec near = load(row + j) * slope + most, far = load(row + j + kLanes) * slope + most;
        const __m512i w =
            short_weights(_mm512_packs_epi32(_mm512_maskz_cvtps_epi32(0xffff, (__m512)near),
                                             _mm512_maskz_cvtps_epi32(0xffff, (__m512)far)));
        sums[j / kPanel % 2] = _mm512_dpwssd_epi32(sums[j / kPanel % 2], w, one);
        put_weights(w, weights + r * kKeyBlock + j);
      }
      factors.add_to_total(to_float((IntVec)sums[0] + (IntVec)sums[1]), r, rows);
    }
  }
#else
  TESSERA_INLINE void weigh(const SeenKeys& seen, RowsSoFar& rows, std::int16_t* weights) {
    const Vec round = splat(kIntegersFrom);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec slope = splat(rows.unit[r]), most = splat(largest[r]);
      const float* row = scores + r * kKeyBlock;
      Vec sums{};
      for (std::int64_t j = 0; j < whole_panels(seen.count); j += kLanes) {
        const Vec w = power_of_two(load(row + j) * slope - most);
        const HalfShortVec shorts = low_shorts((IntVec)(w * kMostWeight + round));
        __builtin_memcpy(weights + r * kKeyBlock + j, &shorts, sizeof shorts);
        sums += w * (kMostWeight * kWeightUnits);
      }
      factors.add_to_total(sums, r, rows);
    }
  }
#endif
};

/// Scores of 8-bit numbers in 16 bits; weights of 8 bits, without a sign. A unit of scores is
/// chosen for each block, so that the largest there can be fit: an eighth of what rounding queries
/// and keys of 64 numbers to 8 bits changes in them.
struct ShortScores {
  static constexpr int kWeightUnits = 128;       // a weight's unit is so many of a total's
  static constexpr float kMostScore = 16383.0f;  // differences of two have 16 bits, too
  static constexpr std::int16_t kUnseen = -32768;
  /// Weights are made from 32nds of a power of 2, whose own rounding is 0.6 % of a weight: as much
  /// as that of one of 8 bits that is a fifth of the largest.
  static constexpr int kSteps = 32, kStepBits = 5;
  /// 2^(-i / kSteps) of the largest weight, in parts of a weight's unit.
  alignas(64) static constexpr std::int16_t kTable[kSteps] = {
      32640, 31941, 31256, 30586, 29931, 29290, 28662, 28048, 27447, 26859, 26283,
      25720, 25169, 24630, 24102, 23585, 23080, 22585, 22101, 21628, 21164, 20711,
      20267, 19833, 19408, 18992, 18585, 18187, 17797, 17416, 17043, 16677};
  static constexpr int kMostShift = 15;

  alignas(64) std::int16_t scores[kRows * kKeyBlock];
  float scale;  // products times a key's unit times this are scores
  std::int16_t largest[kLanes], slope[kLanes];
  int shift;  // steps are differences of scores times 2^shift * slope / 32768
  BlockFactors factors;

  /// `count` keys with these units (in whole vectors), of `wide` numbers each.
  TESSERA_INLINE void start(const float* units, std::int64_t count, std::int64_t wide) {
    BitVec most{};  // as integers, so that no number is larger than what is none
    for (std::int64_t j = 0; j < count; j += kLanes) {
      const BitVec unit = load_as<BitVec>(units + j) & 0x7fffffffu;
      most = unit > most ? unit : most;
    }
    const float unit = max_of((Vec)most);
    scale =
        kMostScore / (127.0f * 127.0f * static_cast<float>(wide) * (unit < 1e-30f ? 1e-30f : unit));
  }
  /// The panel of keys from j on: sums of products (the bits of floats, kIntegersFrom more than
  /// they are) times the keys' units.
  template <bool kMasks>
  TESSERA_INLINE void put(std::int64_t j, const IntVec (&sums)[kRows][2], const float* units,
                          const SeenKeys& seen) {
    const Vec unit0 = load(units) * scale, unit1 = load(units + kLanes) * scale;
    const Vec more0 = kIntegersFrom - unit0 * kIntegersFrom,
              more1 = kIntegersFrom - unit1 * kIntegersFrom;
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      ShortVec s = low_halves((IntVec)((Vec)sums[r][0] * unit0 + more0),
                              (IntVec)((Vec)sums[r][1] * unit1 + more1));
      if (kMasks) s = seen_only(s, seen.by(r) - j);
      __builtin_memcpy(scores + r * kKeyBlock + j, &s, sizeof s);
    }
  }
  TESSERA_INLINE void find_factors(const SeenKeys& seen, RowsSoFar& rows) {
    ShortVec high[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) {
      const std::int16_t* row = scores + r * kKeyBlock;
      high[r] = load_as<ShortVec>(row);
#pragma GCC unroll 8
      for (std::int64_t j = kPanel; j < seen.count; j += kPanel)
        high[r] = larger(load_as<ShortVec>(row + j), high[r]);
    }
    const Vec most = largest_of_rows(high), unit = load(rows.unit) * (1.0f / scale);
    factors.set(most == float{kUnseen} ? splat(kMissing) : most * unit, rows);
    Vec steps = unit * kSteps;  // in a unit of scores
    shift = 0;
    for (float largest_steps = max_of(steps); largest_steps >= 1.0f && shift < kMostShift;
         largest_steps *= 0.5f)
      ++shift, steps *= 0.5f;
    const Vec slopes = steps * 32768.0f;
    const HalfShortVec slope_bits =
        low_shorts((IntVec)((slopes < 32767.0f ? slopes : splat(32767.0f)) + kIntegersFrom));
    const HalfShortVec largest_bits = low_shorts((IntVec)(most + kIntegersFrom));
    __builtin_memcpy(slope, &slope_bits, sizeof slope_bits);
    __builtin_memcpy(largest, &largest_bits, sizeof largest_bits);
  }

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
  /// Weights of 32 keys, in parts of their unit.
  template <bool kShifts>
  TESSERA_INLINE __m512i short_weights(const std::int16_t* row, std::int64_t r,
                                       __m512i table) const {
    __m512i d =
        _mm512_maskz_subs_epi16(~0u, _mm512_set1_epi16(largest[r]), _mm512_loadu_si512(row));
    if (kShifts) {
      const auto most = static_cast<std::int16_t>(32767 >> shift);
      d = _mm512_maskz_min_epi16(~0u, d, _mm512_set1_epi16(most));
      d = _mm512_maskz_sll_epi16(~0u, d, _mm_cvtsi32_si128(shift));
    }
    d = _mm512_maskz_mulhrs_epi16(~0u, d, _mm512_set1_epi16(slope[r]));
    return _mm512_srlv_epi16(_mm512_maskz_permutexvar_epi16(~0u, d, table),
                             _mm512_srli_epi16(d, kStepBits));
  }
  /// Weights of 64 keys from j on, of which row r sees the first `seen`.
  template <bool kShifts, bool kMasks>
  TESSERA_INLINE void weigh_keys(std::int64_t r, std::int64_t j, std::int64_t seen, __m512i table,
                                 __m512i (&sums)[2], std::uint8_t* to) const {
    const std::int16_t* row = scores + r * kKeyBlock + j;
    __m512i near = short_weights<kShifts>(row, r, table),
            far = short_weights<kShifts>(row + kPanel, r, table);
    if (kMasks) {
      const std::uint64_t there = seen <= j ? 0 : ~0ull >> (64 - (seen - j < 64 ? seen - j : 64));
      near = _mm512_maskz_mov_epi16(static_cast<__mmask32>(there), near);
      far = _mm512_maskz_mov_epi16(static_cast<__mmask32>(there >> 32), far);
    }
    const __m512i one = _mm512_set1_epi16(1), unit = _mm512_set1_epi16(32768 / kWeightUnits);
    sums[0] = _mm512_dpwssd_epi32(sums[0], near, one);
    sums[1] = _mm512_dpwssd_epi32(sums[1], far, one);
    // Packed as eight of one and eight of the other in turn.
    const __m512i eights = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0),
                  bytes =
                      _mm512_maskz_packus_epi16(~0ull, _mm512_maskz_mulhrs_epi16(~0u, near, unit),
                                                _mm512_maskz_mulhrs_epi16(~0u, far, unit));
    _mm512_storeu_si512(to + j, _mm512_maskz_permutexvar_epi64(0xff, eights, bytes));
  }
  template <bool kShifts>
  TESSERA_INLINE void weigh_rows(const SeenKeys& seen, RowsSoFar& rows, std::uint8_t* weights) {
    const __m512i table = _mm512_load_si512(kTable);
    for (std::int64_t r = 0; r < kRows; ++r) {
      const std::int64_t by_row = seen.by(r);
      __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      std::uint8_t* to = weights + r * kKeyBlock;
      std::int64_t j = 0;
      for (; j + 64 <= by_row; j += 64) weigh_keys<kShifts, false>(r, j, by_row, table, sums, to);
      for (; j < seen.count; j += 64) weigh_keys<kShifts, true>(r, j, by_row, table, sums, to);
      factors.add_to_total(to_float((IntVec)sums[0] + (IntVec)sums[1]), r, rows);
    }
  }
  TESSERA_INLINE void weigh(const SeenKeys& seen, RowsSoFar& rows, std::uint8_t* weights) {
    if (shift) return weigh_rows<true>(seen, rows, weights);
    weigh_rows<false>(seen, rows, weights);
  }
#else
  TESSERA_INLINE void weigh(const SeenKeys& seen, RowsSoFar& rows, std::uint8_t* weights) {
    for (std::int64_t r = 0; r < kRows; ++r) {
      const std::int16_t* row = scores + r * kKeyBlock;
      Vec sums{};
      for (std::int64_t j = 0; j < kKeyBlock; ++j) {
        std::int32_t w = 0;
        if (j < seen.by(r)) {
          const std::int32_t most = 32767 >> shift, less = largest[r] - row[j];
          const std::int32_t d = (((less < most ? less : most) << shift) * slope[r] + 16384) >> 15;
          w = d >> kStepBits < 16 ? kTable[d % kSteps] >> (d >> kStepBits) : 0;
        }
        weights[r * kKeyBlock + j] = static_cast<std::uint8_t>((w + 64) >> 7);
        sums[0] += static_cast<float>(w);
      }
      factors.add_to_total(sums, r, rows);
    }
  }
#endif

  /// The low halves of all numbers of a and b.
  TESSERA_INLINE static ShortVec low_halves(IntVec a, IntVec b) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
    alignas(64) static constexpr std::int16_t kEven[] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20,
                                                         22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42,
                                                         44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
    return (ShortVec)_mm512_permutex2var_epi16((__m512i)a, _mm512_load_si512(kEven), (__m512i)b);
#else
    const HalfShortVec halves[2] = {low_shorts(a), low_shorts(b)};
    return load_as<ShortVec>(halves);
#endif
  }
  /// The first `seen` of a panel's scores.
  TESSERA_INLINE static ShortVec seen_only(ShortVec s, std::int64_t seen) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
    const __mmask32 there = seen <= 0 ? 0 : ~0u >> (seen < kPanel ? kPanel - seen : 0);
    return (ShortVec)_mm512_mask_mov_epi16(_mm512_set1_epi16(kUnseen), there, (__m512i)s);
#else
    for (std::int64_t i = seen < 0 ? 0 : seen; i < kPanel; ++i) s[i] = kUnseen;
    return s;
#endif
  }
  TESSERA_INLINE static ShortVec larger(ShortVec a, ShortVec b) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
    return (ShortVec)_mm512_maskz_max_epi16(~0u, (__m512i)a, (__m512i)b);
#else
    return a > b ? a : b;
#endif
  }
  /// The largest of each vector, in lanes of one.
  TESSERA_INLINE static Vec largest_of_rows(const ShortVec (&rows)[kRows]) {
#if TESSERA_VECTOR_BYTES == 64 && TESSERA_TILE_ROWS == 12
    const auto larger_of = [](__m512i a, __m512i b) { return _mm512_maskz_max_epi16(~0u, a, b); };
    __m512i twos[kRows / 2], fours[kRows / 4];  // numbers of so many rows side by side
    for (std::int64_t i = 0; i < kRows / 2; ++i) {
      const auto a = (__m512i)rows[2 * i], b = (__m512i)rows[2 * i + 1];
      twos[i] =
          larger_of(_mm512_maskz_unpacklo_epi16(~0u, a, b), _mm512_maskz_unpackhi_epi16(~0u, a, b));
    }
    for (std::int64_t i = 0; i < kRows / 4; ++i) {
      const __m512i a = twos[2 * i], b = twos[2 * i + 1];
      fours[i] = larger_of(_mm512_maskz_unpacklo_epi32(0xffff, a, b),
                           _mm512_maskz_unpackhi_epi32(0xffff, a, b));
    }
    const auto eight = [&](__m512i a, __m512i b) {
      return larger_of(_mm512_maskz_unpacklo_epi64(255, a, b),
                       _mm512_maskz_unpackhi_epi64(255, a, b));
    };
    const __m512i a = eight(fours[0], fours[1]), b = eight(fours[2], fours[2]);
    const __m512i two = larger_of(_mm512_maskz_shuffle_i32x4(0xffff, a, b, 0x44),
                                  _mm512_maskz_shuffle_i32x4(0xffff, a, b, 0xee));
    const __m512i one = larger_of(_mm512_maskz_shuffle_i32x4(0xffff, two, two, 0x88),
                                  _mm512_maskz_shuffle_i32x4(0xffff, two, two, 0xdd));
    return to_float(
        (IntVec)_mm512_maskz_cvtepi16_epi32(0xffff, _mm512_maskz_extracti64x4_epi64(15, one, 0)));
#else
    Vec most{};
    for (std::int64_t r = 0; r < kRows; ++r) {
      std::int16_t largest = kUnseen;
      for (std::int64_t i = 0; i < kPanel; ++i)
        largest = rows[r][i] > largest ? rows[r][i] : largest;
      most[r] = largest;
    }
    return most;
#endif
  }
};

}  // namespace
}  // namespace tessera::kernels
