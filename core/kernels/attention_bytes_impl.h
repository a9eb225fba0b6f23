// Attention in blocks in 8 bits, after SageAttention (Zhang et al. 2024, arXiv 2410.02367); see
// vector.h.
#pragma once
#include "core/kernels/attention_impl.h"
#include "core/kernels/finish_impl.h"
#include "core/kernels/integer_impl.h"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kFour = 4;   // bytes side by side in a lane
constexpr float kMissing = -1e30f;  // added to the scores of keys that are not there
constexpr float kMostWeight = 255.0f;
constexpr float kLog2E = 1.44269504089f;

/// sums + the four products of a lane, of bytes without a sign and bytes with one.
TESSERA_INLINE IntVec add_fours(IntVec sums, IntVec plain, IntVec with_sign) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)plain, (__m512i)with_sign);
#else
  for (int shift = 0; shift < 32; shift += 8)
    sums += ((plain >> shift) & 255) * ((with_sign << (24 - shift)) >> 24);
  return sums;
#endif
}
TESSERA_INLINE IntVec splat_four(const std::uint8_t* p) {
  std::int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return four - IntVec{};
}
/// The lowest byte of every lane.
TESSERA_INLINE void put_bytes(std::uint8_t* to, IntVec v) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512F__)
  const auto bytes = (QuarterByteVec)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v);
#else
  const auto bytes = __builtin_convertvector(v, QuarterByteVec);
#endif
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

/// Whether weights are found as 16-bit numbers.
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
constexpr bool kWeighsShorts = true;
#else
constexpr bool kWeighsShorts = false;
#endif
/// Where the weights of four keys lie among all: two vectors of scores become one of shorts, four
/// numbers of either in turn. The same order holds for values.
TESSERA_INLINE std::int64_t place_of_four(std::int64_t four) {
  constexpr std::int64_t kFours = kPanel / kFour, kHalf = kFours / 2;
  const std::int64_t at = four % kFours;
  return kWeighsShorts ? four - at + (at < kHalf ? 2 * at : 2 * (at - kHalf) + 1) : four;
}

/// 255 * 2^x for x <= 0 to a relative error of 1e-4.
TESSERA_INLINE Vec weight_of(Vec x) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  constexpr int kLessFloor = 9;
  const Vec f = (Vec)_mm512_maskz_reduce_ps(0xffff, (__m512)x, kLessFloor);
  const Vec p = ((f * (0.07802452f * kMostWeight) + 0.22606716f * kMostWeight) * f +
                 0.69583354f * kMostWeight) *
                    f +
                0.99992522f * kMostWeight;
  return (Vec)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)x);
#else
  return exp_negative_coarse(x * 0.69314718056f) * kMostWeight;
#endif
}

/// A vector of numbers, of which n are there.
template <class Number>
TESSERA_INLINE Vec load_most(const Number* p, std::int64_t n) {
  if (n >= kLanes) return numbers_at(p);
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = number_at(p + i);
  return v;
}

/// Of `count` rows and the columns of one vector, the first n.
struct ColumnRange {
  Vec mean, reach;  // reach: the largest distance from the mean
};
template <class Number>
TESSERA_INLINE ColumnRange range_of(const Number* x, std::int64_t ld, std::int64_t count,
                                    std::int64_t n) {
  Vec sum{}, high = load_most(x, n), low = high;
  for (std::int64_t i = 0; i < count; ++i) {
    const Vec v = load_most(x + i * ld, n);
    sum += v;
    high = larger(v, high);
    low = v < low ? v : low;
  }
  const Vec mean = sum * (1.0f / static_cast<float>(count));
  return {mean, larger(high - mean, mean - low)};
}

template <class Number>
TESSERA_INLINE void measure_rows(const KeyValueRows& rows, std::int64_t keys, std::int64_t width,
                                 float* units) {
  const auto *k = static_cast<const Number*>(rows.k), *v = static_cast<const Number*>(rows.v);
  const std::int64_t padded = whole_panels(width);
  for (std::int64_t c = 0; c < padded; c += kLanes) {
    if (c >= width) {
      for (std::int64_t i = 0; i < 3; ++i) store(units + i * padded + c, Vec{});
      continue;
    }
    const std::int64_t step = key_mean_step(keys), some = (keys + step - 1) / step;
    store(units + c, range_of(k + c, step * rows.ldk, some, width - c).mean);
    const ColumnRange values = range_of(v + c, rows.ldv, keys, width - c);
    store(units + padded + c, values.mean);
    store(units + 2 * padded + c, values.reach * (1.0f / 127.0f));
  }
}

void measure_head(const KeyValueRows& rows, std::int64_t keys, std::int64_t width, float* units) {
  if (rows.half) return measure_rows<std::uint16_t>(rows, keys, width, units);
  measure_rows<float>(rows, keys, width, units);
}

/// A panel of keys, `count` of which are there.
template <class Number>
void pack_byte_keys(const Number* k, std::int64_t ldk, std::int64_t count, std::int64_t width,
                    const float* means, std::uint8_t* panel, float* units) {
  const std::int64_t wide = (width + kFour - 1) / kFour * kFour;
  alignas(64) float row[kWidestByteHead];
  alignas(64) std::uint8_t bytes[kWidestByteHead] = {};
  for (std::int64_t j = 0; j < kPanel; ++j) {
    units[j] = 0;
    units[kPanel + j] = j < count ? 0.0f : kMissing;
    if (j < count) {
      for (std::int64_t c = 0; c < width; ++c) row[c] = number_at(k + j * ldk + c) - means[c];
      units[j] = quantize_numbers(
          row, width, wide, 127.0f,
          [&](std::int64_t i, IntVec v) { put_bytes(bytes + i, v + 128); },
          [&](std::int64_t i, std::int32_t n) { bytes[i] = static_cast<std::uint8_t>(n + 128); });
    }
    for (std::int64_t c = 0; c < wide; c += kFour)
      __builtin_memcpy(panel + c * kPanel + j * kFour, bytes + c, kFour);
  }
}

/// Four rows of values, `count` of which are there.
template <class Number>
TESSERA_INLINE void pack_byte_values(const Number* v, std::int64_t ldv, std::int64_t count,
                                     std::int64_t width, const float* means, const float* units,
                                     std::uint8_t* to) {
  const std::int64_t padded = whole_panels(width);
  const Vec round = splat(12582912.0f);  // see exp_negative()
  for (std::int64_t c = 0; c < padded; c += kLanes) {
    const Vec mean = load(means + c), unit = load(units + c);
    const Vec inverse = unit > 1e-30f ? 1.0f / unit : Vec{};
    IntVec fours{};
    for (std::int64_t i = 0; i < count && c < width; ++i) {
      const Vec near = (load_most(v + i * ldv + c, width - c) - mean) * inverse + round;
      fours |= ((IntVec)near & 255) << (8 * static_cast<std::int32_t>(i));
    }
    __builtin_memcpy(to + c * kFour, &fours, sizeof fours);
  }
}

template <class Number>
TESSERA_INLINE void pack_byte_rows(const KeyValueRows& rows, std::int64_t begin, std::int64_t end,
                                   std::int64_t width, void* keys, void* values, float* units) {
  const auto *k = static_cast<const Number*>(rows.k), *v = static_cast<const Number*>(rows.v);
  const std::int64_t padded = whole_panels(width), wide = (width + kFour - 1) / kFour * kFour;
  auto *to_keys = static_cast<std::uint8_t*>(keys), *to_values = static_cast<std::uint8_t*>(values);
  for (std::int64_t i = begin; i < end; i += kPanel) {
    pack_byte_keys(k + i * rows.ldk, rows.ldk, end - i, width, units, to_keys + i * wide,
                   units + 3 * padded + 2 * i);
  }
  for (std::int64_t i = begin; i < end; i += kFour) {
    pack_byte_values(v + i * rows.ldv, rows.ldv, end - i < kFour ? end - i : kFour, width,
                     units + padded, units + 2 * padded,
                     to_values + place_of_four(i / kFour) * kFour * padded);
  }
}

void pack_bytes(const KeyValueRows& rows, std::int64_t begin, std::int64_t end, std::int64_t width,
                void* keys, void* values, float* units) {
  if (rows.half) return pack_byte_rows<std::uint16_t>(rows, begin, end, width, keys, values, units);
  pack_byte_rows<float>(rows, begin, end, width, keys, values, units);
}

/// sums += rows (row_step bytes apart) times a panel, [steps][panel][4] (ldb bytes from one step to
/// the next).
template <bool kRowsHaveSign>
TESSERA_INLINE void add_byte_tile(IntVec (&sums)[kRows][2], const std::uint8_t* a,
                                  std::int64_t row_step, const std::uint8_t* b, std::int64_t ldb,
                                  std::int64_t steps) {
  for (std::int64_t i = 0; i < steps; ++i, b += ldb) {
    const IntVec b0 = load_as<IntVec>(b), b1 = load_as<IntVec>(b + kFour * kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const IntVec x = splat_four(a + r * row_step + kFour * i);
      sums[r][0] = kRowsHaveSign ? add_fours(sums[r][0], b0, x) : add_fours(sums[r][0], x, b0);
      sums[r][1] = kRowsHaveSign ? add_fours(sums[r][1], b1, x) : add_fours(sums[r][1], x, b1);
    }
  }
}

constexpr std::int64_t kRowRoom = (kRows + kLanes - 1) / kLanes * kLanes;

/// A group of kRows queries and what is known of them so far.
struct ByteRows {
  std::uint8_t q[kRows * kWidestByteHead];  // [kRows][whole fours], with a sign
  std::int32_t start[kRows];                // takes off what the keys' 128 adds to sums
  float unit[kRowRoom];                     // of scores, for powers of 2
  float best[kRowRoom];                     // running maximum, in these
  float total[kRows * kLanes];              // running sums of weights, lane by lane
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

void start_rows(const AttentionBlock& b, std::int64_t first, ByteRows& rows) {
  const std::int64_t wide = (b.width + kFour - 1) / kFour * kFour;
  for (std::int64_t r = 0; r < kRowRoom; ++r) rows.best[r] = kMissing, rows.unit[r] = 0;
  for (std::int64_t i = 0; i < kRows * kLanes; ++i) rows.total[i] = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    std::uint8_t* q = rows.q + r * wide;
    const bool there = first + r < b.rows;
    const float unit = quantize_numbers(
        b.q + (there ? first + r : 0) * b.ldq, there ? b.width : 0, wide, 127.0f,
        [&](std::int64_t i, IntVec v) { put_bytes(q + i, v); },
        [&](std::int64_t i, std::int32_t n) { q[i] = static_cast<std::uint8_t>(n); });
    rows.start[r] = -128 * sum_of_bytes(q, wide);
    // At least so much that kMissing counts.
    const float scaled = unit * b.scale * kLog2E;
    rows.unit[r] = scaled < 1e-20f ? 1e-20f : scaled;
  }
}

/// Scores of keys from number `from` on, of which the first `seen` count; the others very negative.
TESSERA_INLINE Vec masked(Vec scores, std::int64_t from, std::int64_t seen) {
  alignas(64) static constexpr std::int32_t kLaneNumbers[] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                              8, 9, 10, 11, 12, 13, 14, 15};
  const IntVec there =
      load_as<IntVec>(kLaneNumbers) < static_cast<std::int32_t>(seen - from) - IntVec{};
  return there ? scores : splat(kMissing);
}

/// Scores of a group of queries and a panel of keys; the largest so far of each row's lanes.
/// kMasks: row r sees `seen` + r of these keys.
template <bool kMasks>
TESSERA_INLINE void score_tile(const ByteRows& rows, std::int64_t wide, const std::uint8_t* keys,
                               const float* units, std::int64_t seen, float* scores,
                               Vec (&high)[kRows]) {
  IntVec sums[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = rows.start[r] - IntVec{};
  add_byte_tile<true>(sums, rows.q, wide, keys, kFour * kPanel, wide / kFour);
  const Vec unit0 = load(units), unit1 = load(units + kLanes);
  const Vec more0 = load(units + kPanel), more1 = load(units + kPanel + kLanes);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    Vec s0 = to_float(sums[r][0]) * unit0 + more0, s1 = to_float(sums[r][1]) * unit1 + more1;
    if (kMasks) s0 = masked(s0, 0, seen + r), s1 = masked(s1, kLanes, seen + r);
    store(scores + r * kKeyBlock, s0);
    store(scores + r * kKeyBlock + kLanes, s1);
    high[r] = larger(larger(s0, s1), high[r]);
  }
}

/// What a block of keys changes for a group of rows: factors of what was summed before, and of the
/// block's own weights, which are relative to the largest of the block.
struct ByteFactors {
  float largest[kRowRoom], before[kRowRoom], own[kRowRoom];
};
TESSERA_INLINE void find_factors(const Vec (&high)[kRows], ByteRows& rows, ByteFactors& f) {
  const Vec least = splat(0.1f * kMissing);  // where a row sees none: more than its scores
  for (std::int64_t r = 0; r < kRowRoom; ++r)
    f.largest[r] = r < kRows ? max_of(larger(high[r], least)) * rows.unit[r] : 0.0f;
  for (std::int64_t r = 0; r < kRowRoom; r += kLanes) {
    const Vec own = load(f.largest + r), before = load(rows.best + r), best = larger(own, before);
    store(f.before + r, weight_of(before - best) * (1.0f / kMostWeight));
    store(f.own + r, weight_of(own - best) * (1.0f / kMostWeight));
    store(rows.best + r, best);
  }
}

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
/// 2^-t * 128 * 255 of 32 numbers t >= 0 of 16 bits in units of 2^-11, to a relative error of
/// 0.002. What is 16 or more may have turned negative: either way it becomes 0.
TESSERA_INLINE __m512i short_weights(__m512i t) {
  // t less its whole part, from -1 to 1: 2^-((y + 1) / 2) * 32640, of degree 2
  const __m512i y = _mm512_xor_si512(_mm512_slli_epi16(t, 5), _mm512_set1_epi16(-32768));
  __m512i p = _mm512_mulhrs_epi16(y, _mm512_set1_epi16(1376));
  p = _mm512_mulhrs_epi16(y, _mm512_add_epi16(p, _mm512_set1_epi16(-8118)));
  p = _mm512_add_epi16(p, _mm512_set1_epi16(23090));
  return _mm512_srlv_epi16(p, _mm512_srli_epi16(t, 11));
}

/// Scores [kRows][count] -> weights, as bytes in the order of place_of_four(); adds them to the
/// rows' totals.
TESSERA_INLINE void weigh(const float* scores, std::int64_t count, const ByteFactors& f,
                          ByteRows& rows, std::uint8_t* weights) {
  constexpr float kUnits = 2048.0f, kRoundedUp = 1.0f + 3e-7f;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const Vec unit = splat(-kUnits * rows.unit[r]);
    // Not below what was rounded otherwise: differences must not turn negative.
    const float most = kUnits * f.largest[r];
    const Vec largest = splat(most > 0 ? most * kRoundedUp : most / kRoundedUp);
    const float* row = scores + r * kKeyBlock;
    std::uint8_t* to = weights + r * kKeyBlock;
    __m512i sums = _mm512_setzero_si512();
    for (std::int64_t j = 0; j < count; j += kPanel) {
      const Vec near = load(row + j) * unit + largest,
                far = load(row + j + kLanes) * unit + largest;
      const __m512i a = _mm512_maskz_cvtps_epi32(0xffff, (__m512)near),
                    b = _mm512_maskz_cvtps_epi32(0xffff, (__m512)far);
      const __m512i w = short_weights(_mm512_packs_epi32(a, b));
      sums = _mm512_dpwssd_epi32(sums, w, _mm512_set1_epi16(1));
      const auto bytes =
          _mm512_maskz_cvtepi16_epi8(~0u, _mm512_mulhrs_epi16(w, _mm512_set1_epi16(256)));
      __builtin_memcpy(to + j, &bytes, sizeof bytes);
    }
    float* total = rows.total + r * kLanes;
    store(total, load(total) * f.before[r] + to_float((IntVec)sums) * (f.own[r] * (1.0f / 128)));
  }
}
#else
/// Scores [kRows][count] -> weights, as bytes; adds them to the rows' totals.
TESSERA_INLINE void weigh(const float* scores, std::int64_t count, const ByteFactors& f,
                          ByteRows& rows, std::uint8_t* weights) {
  const Vec round = splat(12582912.0f);  // leaves the nearest integer in the lowest byte
  for (std::int64_t r = 0; r < kRows; ++r) {
    const Vec unit = splat(rows.unit[r]), largest = splat(f.largest[r]);
    const float* row = scores + r * kKeyBlock;
    std::uint8_t* to = weights + r * kKeyBlock;
    Vec sums{}, more{};
    for (std::int64_t j = 0; j < count; j += kPanel) {
      const Vec a = weight_of(load(row + j) * unit - largest),
                b = weight_of(load(row + j + kLanes) * unit - largest);
      put_bytes(to + j, (IntVec)(a + round));
      put_bytes(to + j + kLanes, (IntVec)(b + round));
      sums += a;
      more += b;
    }
    float* total = rows.total + r * kLanes;
    store(total, load(total) * f.before[r] + (sums + more) * f.own[r]);
  }
}
#endif

/// out [kRows, padded] = out * before + weights * values * own.
TESSERA_INLINE void add_values(const std::uint8_t* weights, const std::uint8_t* values,
                               std::int64_t count, std::int64_t padded, const ByteFactors& f,
                               float* out) {
  for (std::int64_t c = 0; c < padded; c += kPanel) {
    IntVec sums[kRows][2] = {};
    add_byte_tile<false>(sums, weights, kKeyBlock, values + c * kFour, padded * kFour,
                         (kWeighsShorts ? whole_panels(count) : count + kFour - 1) / kFour);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      float* to = out + r * padded + c;
      store(to, load(to) * f.before[r] + to_float(sums[r][0]) * f.own[r]);
      store(to + kLanes, load(to + kLanes) * f.before[r] + to_float(sums[r][1]) * f.own[r]);
    }
  }
}

/// Asks memory for rows that lie far apart, each a wait by itself.
TESSERA_INLINE void prefetch_rows(const float* p, std::int64_t ld, std::int64_t rows,
                                  std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r) prefetch_row(p + r * ld, width);
}

/// A group of rows and the keys [begin, begin + count), which the last of them sees.
TESSERA_INLINE void add_byte_block(const AttentionBlock& b, std::int64_t group, std::int64_t begin,
                                   std::int64_t count, ByteRows& rows, float* out) {
  const std::int64_t padded = whole_panels(b.width), wide = (b.width + kFour - 1) / kFour * kFour;
  const auto* keys = static_cast<const std::uint8_t*>(b.head.keys) + begin * wide;
  const float* units = b.head.units + 3 * padded + 2 * begin;
  alignas(64) float scores[kRows * kKeyBlock];
  alignas(64) std::uint8_t weights[kRows * kKeyBlock];
  Vec high[kRows];
  for (Vec& v : high) v = splat(kMissing);
  const std::int64_t seen = b.causal ? b.first + group * kRows - begin : count;  // by its first row
  for (std::int64_t j = 0; j < count; j += kPanel) {
    const std::uint8_t* panel = keys + j * wide;
    if (b.causal && j + kPanel > seen) {
      score_tile<true>(rows, wide, panel, units + 2 * j, seen - j, scores + j, high);
    } else {
      score_tile<false>(rows, wide, panel, units + 2 * j, 0, scores + j, high);
    }
  }
  ByteFactors factors;
  find_factors(high, rows, factors);
  weigh(scores, whole_panels(count), factors, rows, weights);
  add_values(weights, static_cast<const std::uint8_t*>(b.head.values) + begin * padded, count,
             padded, factors, out);
}

/// What a group of rows gives in the end.
TESSERA_INLINE void finish_rows(const AttentionBlock& b, std::int64_t first, const ByteRows& rows,
                                const float* sums) {
  const std::int64_t padded = whole_panels(b.width);
  const float *value_means = b.head.units + padded, *value_units = value_means + padded;
  for (std::int64_t r = 0; r < kRows && first + r < b.rows; ++r) {
    const float inverse = 1.0f / sum_of(load(rows.total + r * kLanes));
    float* out = b.out + (first + r) * b.ldo;
    for (std::int64_t c = 0; c < b.width; ++c)
      out[c] = sums[r * padded + c] * inverse * value_units[c] + value_means[c];
  }
}

/// Rows that will be needed are asked for while a group before them is computed, few at a time:
/// queries (those of the next block, too) and places of results.
void attention_block_of_bytes(const AttentionBlock& b) {
  const std::int64_t padded = whole_panels(b.width);
  const std::int64_t groups = (b.rows + kRows - 1) / kRows;
  alignas(64) ByteRows rows[kQueryBlock / kRows];
  float* sums = b.scratch;
  for (std::int64_t i = 0; i < groups * kRows * padded; ++i) sums[i] = 0.0f;
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
      if (begin == 0) {
        start_rows(b, first, rows[g]);
        prefetch_rows(b.q + (first + kRows) * b.ldq, b.ldq, kRows, b.width);
      }
      if (ends) prefetch_rows(b.out + first * b.ldo, b.ldo, kRows, b.width);
      add_byte_block(b, g, begin, ends ? left : kKeyBlock, rows[g], sums + first * padded);
      if (ends) finish_rows(b, first, rows[g], sums + first * padded);
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
