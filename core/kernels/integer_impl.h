// Products of quantised numbers; see integer.h.
#pragma once
#include "core/kernels/finish_impl.h"
#include "core/kernels/vector_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

typedef std::int16_t ShortVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::uint8_t ByteVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::int16_t HalfShortVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
typedef std::int8_t HalfByteVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
typedef std::int8_t QuarterByteVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 4)));
typedef std::uint8_t QuarterUnsignedVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 4)));

TESSERA_INLINE Vec to_float(IntVec v) { return __builtin_convertvector(v, Vec); }
/// Bytes as 32 bits (which GCC's own conversion takes out one by one).
TESSERA_INLINE IntVec from_bytes(const std::uint8_t* p) {
#if TESSERA_VECTOR_BYTES == 64
  return (IntVec)_mm512_maskz_cvtepu8_epi32(0xffff, load_as<__m128i>(p));
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return (IntVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
#else
  return __builtin_convertvector(load_as<QuarterUnsignedVec>(p), IntVec);
#endif
}
/// sums + the products of both 16-bit integers of a lane.
TESSERA_INLINE IntVec add_pairs_of_shorts(IntVec sums, IntVec a, IntVec b) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)
  return (IntVec)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
#elif TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return sums + (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVXVNNI__)
  return (IntVec)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)a, (__m256i)b);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return sums + (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif TESSERA_VECTOR_BYTES == 16 && defined(__SSE2__)
  return sums + (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return sums + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
#if (TESSERA_VECTOR_BYTES == 64 && defined(__AVX512VNNI__)) || \
    (TESSERA_VECTOR_BYTES == 32 && defined(__AVXVNNI__))
#define TESSERA_MULTIPLIES_BYTES
/// sums + the products of the four bytes of a lane, of numbers without a sign and with one.
TESSERA_INLINE IntVec add_fours_of_bytes(IntVec sums, IntVec plain, IntVec with_sign) {
#if TESSERA_VECTOR_BYTES == 64
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)plain, (__m512i)with_sign);
#else
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)plain, (__m256i)with_sign);
#endif
}
#endif
/// The low halves of all lanes (which GCC's own conversion takes several steps for).
TESSERA_INLINE HalfShortVec low_shorts(IntVec v) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512F__)
  return (HalfShortVec)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)v);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  const auto low = (__m256i)(v & 0xffff);  // of which packing changes none
  return (HalfShortVec)_mm_packus_epi32(_mm256_castsi256_si128(low),
                                        _mm256_extracti128_si256(low, 1));
#else
  return __builtin_convertvector(v, HalfShortVec);
#endif
}
/// The lowest bytes of all lanes.
TESSERA_INLINE QuarterByteVec low_bytes(IntVec v) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512F__)
  return (QuarterByteVec)_mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)v);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  const auto words = (__m128i)low_shorts(v & 0xff);
  return (QuarterByteVec)_mm_packus_epi16(words, words)[0];
#else
  return __builtin_convertvector(v, QuarterByteVec);
#endif
}
/// What a vector of weights (`kDepth` numbers of each of kLanes columns) and of neighbouring
/// numbers of a row is made of; how they are multiplied and added.
#ifdef TESSERA_MULTIPLIES_BYTES

constexpr std::int64_t kDepth = 4;
typedef std::int8_t RowNumber;
typedef std::uint8_t WideNumber;
typedef QuarterByteVec RowVec;
typedef ByteVec WeightVec;
constexpr std::int32_t kWeightOffset = 128;  // of 8-bit weights as they lie and of widened ones

TESSERA_INLINE IntVec add_products(IntVec sums, IntVec row, WeightVec weight) {
  return add_fours_of_bytes(sums, (IntVec)weight, row);
}
TESSERA_INLINE WeightVec load_bytes(const std::uint8_t* p) { return load_as<WeightVec>(p); }
TESSERA_INLINE RowVec narrowed(IntVec v) { return low_bytes(v); }
/// One number of 8 bits in all `kDepth` places of its column.
TESSERA_INLINE WeightVec in_all_places(IntVec v) { return (WeightVec)(v * 0x01010101); }
/// The numbers of a vector of 4-bit words.
TESSERA_INLINE void unpack(const std::uint32_t* words, WeightVec (&n)[8 / kDepth]) {
  const WeightVec x = load_as<WeightVec>(words);
  n[0] = x & 15;
  n[1] = (WeightVec)((ShortVec)x >> 4) & 15;
}

#else

constexpr std::int64_t kDepth = 2;
typedef std::int16_t RowNumber;
typedef std::int16_t WideNumber;
typedef HalfShortVec RowVec;
typedef ShortVec WeightVec;
constexpr std::int32_t kWeightOffset = 0;

TESSERA_INLINE IntVec add_products(IntVec sums, IntVec row, WeightVec weight) {
  return add_pairs_of_shorts(sums, row, (IntVec)weight);
}
/// Bytes to 16 bits (which GCC's own conversion does in five steps where one instruction will do).
TESSERA_INLINE WeightVec load_bytes(const std::uint8_t* p) {
  const HalfByteVec bytes = load_as<HalfByteVec>(p);
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return (ShortVec)_mm512_cvtepi8_epi16((__m256i)bytes);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return (ShortVec)_mm256_cvtepi8_epi16((__m128i)bytes);
#else
  return __builtin_convertvector(bytes, ShortVec);
#endif
}
TESSERA_INLINE RowVec narrowed(IntVec v) { return low_shorts(v); }
TESSERA_INLINE WeightVec in_all_places(IntVec v) { return (WeightVec)((v & 0xffff) | (v << 16)); }
TESSERA_INLINE void unpack(const std::uint32_t* words, WeightVec (&n)[8 / kDepth]) {
  typedef std::uint16_t WordVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
  const WordVec x = load_as<WordVec>(words);
  n[0] = (WeightVec)(x & 15);
  n[1] = (WeightVec)((x >> 4) & 15);
  n[2] = (WeightVec)((x >> 8) & 15);
  n[3] = (WeightVec)(x >> 12);
}

#endif

constexpr std::int64_t kParts = 8 / kDepth;              // of a vector of 4-bit words
constexpr std::int64_t kRowParts = kDepth == 4 ? 2 : 1;  // of one of few rows
constexpr std::int64_t kVector = kDepth * kLanes;        // numbers of a vector of weights
constexpr std::int64_t kPanelRows = kDepth * kPanel;     // numbers of a panel, kDepth rows of it

TESSERA_INLINE const RowNumber* row_of(const IntegerRows& rows, std::int64_t r) {
  return static_cast<const RowNumber*>(rows.a) + r * rows.lda;
}

TESSERA_INLINE std::int32_t largest_of(IntVec v) {
#if TESSERA_VECTOR_BYTES == 64
  return lanes_together(v, [](__m256i a, __m256i b) { return _mm256_max_epi32(a, b); });
#else
  std::int32_t most = v[0];
  for (std::int64_t i = 1; i < kLanes; ++i) most = v[i] > most ? v[i] : most;
  return most;
#endif
}

TESSERA_INLINE std::int32_t sum_of_lanes(IntVec v) {
#if TESSERA_VECTOR_BYTES == 64
  return lanes_together(v, [](__m256i a, __m256i b) { return _mm256_add_epi32(a, b); });
#else
  std::int32_t sum = 0;
  for (std::int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
#endif
}

/// The largest size of a row's numbers (0 where there is nothing to quantise), and 0 plus NaN if
/// one of them is not finite.
struct RowSize {
  float most, check;
};
constexpr std::int32_t kSizeBits = 0x7fffffff;  // floats' sizes lie as integers do
TESSERA_INLINE RowSize row_size(std::int32_t most) {
  constexpr std::int32_t kInfinite = 0x7f800000;
  if (most >= kInfinite) return {0, __builtin_nanf("")};
  const auto size = __builtin_bit_cast(float, most);
  return {size > 1e-30f ? size : 0.0f, 0};
}
/// The larger of `high` and v's sizes.
TESSERA_INLINE IntVec larger_size(IntVec high, Vec v) {
  const IntVec size = (IntVec)v & kSizeBits;
  return size > high ? size : high;
}
TESSERA_INLINE RowSize size_of_row(const float* x, std::int64_t k) {
  const std::int64_t whole = k / kLanes * kLanes;
  IntVec high{};
  for (std::int64_t i = 0; i < whole; i += kLanes) high = larger_size(high, load(x + i));
  std::int32_t most = largest_of(high);
  for (std::int64_t i = whole; i < k; ++i) {
    const std::int32_t v = __builtin_bit_cast(std::int32_t, x[i]) & kSizeBits;
    most = v > most ? v : most;
  }
  return row_size(most);
}

/// Calls put(i, integers) for whole vectors of x / unit from `first` on, put_one(i, integer) for
/// the rest and for zeros up to `padded`; the unit is the largest number over `limit`.
template <class Put, class PutOne>
TESSERA_INLINE void round_numbers(const float* x, std::int64_t first, std::int64_t k,
                                  std::int64_t padded, float inverse, Put put, PutOne put_one) {
  const std::int64_t whole = inverse != 0.0f ? k / kLanes * kLanes : 0;
  const Vec round = splat(kIntegersFrom);
  std::int64_t i = first;
  for (; i < whole; i += kLanes) put(i, (IntVec)(load(x + i) * inverse + round) - (IntVec)round);
  for (; i < padded; ++i) {
    const bool counts = i < k && inverse != 0.0f;
    put_one(i, counts ? static_cast<std::int32_t>(__builtin_rintf(x[i] * inverse)) : 0);
  }
}
/// What numbers are multiplied by to become integers within +-limit; 0 for a row of zeros.
TESSERA_INLINE float inverse_unit(const RowSize& size, float limit) {
  return size.most != 0.0f ? limit / size.most : 0.0f;
}
/// What one integer is worth.
TESSERA_INLINE float unit_of(const RowSize& size, float limit) {
  return size.check == 0.0f ? size.most / limit : size.check;
}

/// Both of whole rows; returns the unit.
template <class Put, class PutOne>
TESSERA_INLINE float quantize_numbers(const float* x, std::int64_t k, std::int64_t padded,
                                      float limit, Put put, PutOne put_one) {
  const RowSize size = size_of_row(x, k);
  round_numbers(x, 0, k, padded, inverse_unit(size, limit), put, put_one);
  return unit_of(size, limit);
}

TESSERA_INLINE void put_numbers(RowNumber* q, IntVec v) {
  const RowVec narrow = narrowed(v);
  __builtin_memcpy(q, &narrow, sizeof narrow);
}

#ifdef TESSERA_MULTIPLIES_BYTES
/// Integers of 8 bits and a sign, one vector after the other.
TESSERA_INLINE ByteVec four_as_bytes(const IntVec (&v)[4]) {
#if TESSERA_VECTOR_BYTES == 64
  const IntVec order = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const auto pair = [](IntVec a, IntVec b) { return _mm512_packs_epi32((__m512i)a, (__m512i)b); };
  const __m512i bytes = _mm512_packs_epi16(pair(v[0], v[1]), pair(v[2], v[3]));
  return (ByteVec)_mm512_maskz_permutexvar_epi32(0xffff, (__m512i)order, bytes);
#else
  const IntVec order = {0, 4, 1, 5, 2, 6, 3, 7};
  const auto pair = [](IntVec a, IntVec b) { return _mm256_packs_epi32((__m256i)a, (__m256i)b); };
  const __m256i bytes = _mm256_packs_epi16(pair(v[0], v[1]), pair(v[2], v[3]));
  return (ByteVec)_mm256_permutevar8x32_epi32(bytes, (__m256i)order);
#endif
}
#endif

/// Rounds numbers by whole fours of vectors, as many as there are; returns their number. Asks
/// memory for as many at `later`.
TESSERA_INLINE std::int64_t round_fours(const float* x, std::int64_t k, float inverse, RowNumber* q,
                                        const float* later) {
  std::int64_t i = 0;
#ifdef TESSERA_MULTIPLIES_BYTES
  const Vec round = splat(kIntegersFrom);
  for (; i + kVector <= k; i += kVector) {
    IntVec v[4];
#pragma GCC unroll 4
    for (std::int64_t j = 0; j < 4; ++j) {
      __builtin_prefetch(later + i + j * kLanes);
      v[j] = (IntVec)(load(x + i + j * kLanes) * inverse + round) - (IntVec)round;
    }
    const ByteVec bytes = four_as_bytes(v);
    __builtin_memcpy(q + i, &bytes, sizeof bytes);
  }
#endif
  return i;
}

TESSERA_INLINE float quantize_sized(const float* x, std::int64_t k, std::int64_t padded,
                                    float limit, const RowSize& size, RowNumber* q,
                                    const float* later) {
  const float inverse = inverse_unit(size, limit);
  round_numbers(
      x, round_fours(x, k, inverse, q, later), k, padded, inverse,
      [&](std::int64_t i, IntVec v) { put_numbers(q + i, v); },
      [&](std::int64_t i, std::int32_t n) { q[i] = static_cast<RowNumber>(n); });
  return unit_of(size, limit);
}
/// x [k] -> q [padded] within +-limit; returns what one unit is worth.
TESSERA_INLINE float quantize_row(const float* x, std::int64_t k, std::int64_t padded, float limit,
                                  RowNumber* q) {
  return quantize_sized(x, k, padded, limit, size_of_row(x, k), q, x + k);
}

#if TESSERA_VECTOR_BYTES == 64
TESSERA_INLINE float sum_of_four(const Vec (&v)[4]) {
  return quick_sum_of((v[0] + v[1]) + (v[2] + v[3]));
}

/// layer_norm() of rows that are whole fours of vectors, with sums in another order. Step by step,
/// all rows one after the other: each step waits for a sum of the one before.
TESSERA_INLINE void normal_fours(const RoundedRows& r, RowSize* sizes) {
  constexpr std::int64_t kFour = 4 * kLanes;
  const auto width = static_cast<float>(r.k);
  float mean[kRowsRounded], inverse[kRowsRounded];
  for (std::int64_t row = 0; row < r.m; ++row) {
    const float* x = r.x + row * r.ldx;
    Vec sums[4] = {};
    for (std::int64_t i = 0; i < r.k; i += kFour) {
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < 4; ++j) sums[j] += load(x + i + j * kLanes);
    }
    mean[row] = sum_of_four(sums) / width;
  }
  for (std::int64_t row = 0; row < r.m; ++row) {
    const float* x = r.x + row * r.ldx;
    Vec squares[4] = {};
    for (std::int64_t i = 0; i < r.k; i += kFour) {
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < 4; ++j) {
        const Vec d = load(x + i + j * kLanes) - mean[row];
        squares[j] += d * d;
      }
    }
    inverse[row] = 1.0f / __builtin_sqrtf(sum_of_four(squares) / width + r.eps);
  }
  for (std::int64_t row = 0; row < r.m; ++row) {
    const float* x = r.x + row * r.ldx;
    IntVec high{};
    for (std::int64_t i = 0; i < r.k; i += kLanes) {
      const Vec v =
          (load(x + i) - mean[row]) * inverse[row] * load(r.weight + i) + load(r.bias + i);
      store(r.normal + row * r.k + i, v);
      high = larger_size(high, v);
    }
    sizes[row] = row_size(largest_of(high));
  }
}
#endif

/// LayerNorm of rows, and how large its results are.
TESSERA_INLINE void normal_rows(const RoundedRows& r, RowSize* sizes) {
#if TESSERA_VECTOR_BYTES == 64
  if (r.k % (4 * kLanes) == 0) return normal_fours(r, sizes);
#endif
  for (std::int64_t row = 0; row < r.m; ++row) {
    float* normal = r.normal + row * r.k;
    layer_norm(r.x + row * r.ldx, r.weight, r.bias, r.eps, r.k, normal);
    sizes[row] = size_of_row(normal, r.k);
  }
}

void quantize_rows(const RoundedRows& r) {
  RowSize sizes[kRowsRounded];
  const float* x = r.weight ? r.normal : r.x;
  const std::int64_t ldx = r.weight ? r.k : r.ldx;
  if (r.weight) {
    normal_rows(r, sizes);
  } else {
    for (std::int64_t row = 0; row < r.m; ++row) sizes[row] = size_of_row(x + row * ldx, r.k);
  }
  for (std::int64_t row = 0; row < r.m; ++row, x += ldx) {
    RowNumber* q = static_cast<RowNumber*>(r.q) + row * r.ldq;
    r.units[row] =
        quantize_sized(x, r.k, r.padded, r.limit, sizes[row], q, r.x + (r.m + row) * r.ldx);
  }
}

float quantize_fine(const float* x, std::int64_t k, std::int64_t padded, float limit, void* to) {
  constexpr std::int32_t kHalf = 1 << (kLowBits - 1);
  auto *high = static_cast<RowNumber*>(to), *low = high + padded;
  return quantize_numbers(
      x, k, padded, limit * (1 << kLowBits),
      [&](std::int64_t i, IntVec v) {
        const IntVec above = (v + kHalf) >> kLowBits;
        put_numbers(high + i, above);
        put_numbers(low + i, v - (above << kLowBits));
      },
      [&](std::int64_t i, std::int32_t n) {
        const std::int32_t above = (n + kHalf) >> kLowBits;
        high[i] = static_cast<RowNumber>(above);
        low[i] = static_cast<RowNumber>(n - (above << kLowBits));
      });
}

void sum_groups(const void* q, std::int64_t k, std::int64_t group, std::int32_t* sums) {
  const auto* numbers = static_cast<const RowNumber*>(q);
  for (std::int64_t g = 0; g < k / group; ++g, numbers += group) {
    std::int64_t i = 0;
    std::int32_t sum = 0;
#ifdef TESSERA_MULTIPLIES_BYTES
    IntVec fours{};
    for (; i + kVector <= group; i += kVector)
      fours = add_fours_of_bytes(fours, 0x01010101 - IntVec{}, load_as<IntVec>(numbers + i));
    sum = sum_of_lanes(fours);
#endif
    for (; i < group; ++i) sum += numbers[i];
    sums[g] = sum;
  }
}

void widen8(const std::uint8_t* panel, std::int64_t k, void* to) {
  auto* wide = static_cast<WideNumber*>(to);
  for (std::int64_t i = 0; i < k * kPanel; i += kVector) {
    const WeightVec weights = load_bytes(panel + i);
    __builtin_memcpy(wide + i, &weights, sizeof weights);
  }
}

void widen4(const NibblePanel& p, std::int64_t k, void* to, float* scales) {
  auto* wide = static_cast<WideNumber*>(to);
  for (std::int64_t g = 0; g < k / kGroup; ++g) {
    for (std::int64_t v = 0; v < 2; ++v) {
      const std::int64_t at = g * kPanel + v * kLanes;
      store(scales + at, from_bf16(p.scales + at));
      const WeightVec offset = in_all_places(kWeightOffset - from_bytes(p.zeros + at));
      for (std::int64_t b = g * kGroup / 8; b < (g + 1) * kGroup / 8; ++b) {
        WeightVec n[kParts];
        unpack(p.weight + (2 * b + v) * kLanes, n);
        for (std::int64_t i = 0; i < kParts; ++i) {
          const WeightVec weights = n[i] + offset;
          __builtin_memcpy(wide + ((kParts * b + i) * 2 + v) * kVector, &weights, sizeof weights);
        }
      }
    }
  }
}

/// What the sums of row r start from, so that the weights' offset is gone in the end.
TESSERA_INLINE std::int32_t start_of(const IntegerRows& rows, std::int64_t r, std::int64_t groups,
                                     std::int64_t g) {
  return kWeightOffset ? -kWeightOffset * rows.group_sums[r * groups + g] : 0;
}

/// Asks memory for where the results of a row go, and for what is added to them: lines that lie far
/// apart, each a wait by itself.
TESSERA_INLINE void prefetch_results(const IntegerTile& t, std::int64_t row) {
  const float *results = t.results + row * t.ld_results,
              *residual = t.residual + row * t.ld_residual;
  for (std::int64_t v = 0; v < 2; ++v) {
    __builtin_prefetch(results + v * kLanes, 1);
    if (t.residual) __builtin_prefetch(residual + v * kLanes);
  }
}

/// acc += kDepth numbers of each row times as many of a panel.
template <std::int64_t kCount>
TESSERA_INLINE void add_to_tile(const RowNumber* a, std::int64_t lda, const WideNumber* weight,
                                IntVec (&acc)[kCount][2]) {
  const WeightVec w0 = load_as<WeightVec>(weight), w1 = load_as<WeightVec>(weight + kVector);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kCount; ++r) {
    const IntVec x = splat_word(a + r * lda);
    acc[r][0] = add_products(acc[r][0], x, w0);
    acc[r][1] = add_products(acc[r][1], x, w1);
  }
}

/// Sums of a group of k, less what the weights' offset adds. Meanwhile memory is asked for what is
/// needed next, a row or a line every two steps: not many lines can be on their way.
template <std::int64_t kCount>
TESSERA_INLINE void sum_tile(const IntegerTile& t, std::int64_t first, std::int64_t g,
                             std::int64_t groups, IntVec (&acc)[kCount][2]) {
  const RowNumber* a = row_of(t.rows, first);
  const auto* weight = static_cast<const WideNumber*>(t.weight);
  const std::int64_t end = (g + 1) * t.group;
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kCount; ++r)
    acc[r][0] = acc[r][1] = start_of(t.rows, first + r, groups, g) - IntVec{};
  std::int64_t i = g * t.group;
  if (g == 0) {
    std::int64_t r = 0;
    for (; r < kCount && i + kDepth < end; ++r) {
      prefetch_results(t, first + r);
      for (std::int64_t j = 0; j < 2; ++j, i += kDepth)
        add_to_tile<kCount>(a + i, t.rows.lda, weight + i * kPanel, acc);
    }
    for (; r < kCount; ++r) prefetch_results(t, first + r);
  }
  if (t.next) {  // a share of it
    constexpr std::int64_t kLine = 64;
    const std::int64_t bytes = t.k * kPanel, share = (bytes / t.m + kLine - 1) / kLine * kLine;
    const std::uint8_t* ask = t.next + first * share;
    const std::uint8_t* until = ask + kCount * share;
    if (until > t.next + bytes) until = t.next + bytes;
    for (; ask < until && i + kDepth < end; ask += kLine) {
      __builtin_prefetch(ask);
      for (std::int64_t j = 0; j < 2; ++j, i += kDepth)
        add_to_tile<kCount>(a + i, t.rows.lda, weight + i * kPanel, acc);
    }
  }
  for (; i < end; i += kDepth) add_to_tile<kCount>(a + i, t.rows.lda, weight + i * kPanel, acc);
}

/// Tiles of weights in groups: sums as they are.
template <std::int64_t kCount>
TESSERA_INLINE void rows_times_groups(const IntegerTile& t, std::int64_t first) {
  const std::int64_t groups = t.k / t.group;
  for (std::int64_t g = 0; g < groups; ++g) {
    IntVec acc[kCount][2];
    sum_tile<kCount>(t, first, g, groups, acc);
    const float* scales = t.scales + g * kPanel;
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kCount; ++r) {
      float* sums = t.sums + (first + r) * t.lds;
      for (std::int64_t v = 0; v < 2; ++v) {
        const Vec value =
            to_float(acc[r][v]) * (load(scales + v * kLanes) * t.rows.scales[first + r]);
        store(sums + v * kLanes, g ? load(sums + v * kLanes) + value : value);
      }
    }
  }
}

/// Tiles of weights with one scale a column, whose sums are results.
template <std::int64_t kCount, Activation kActivation, bool kAdds>
TESSERA_INLINE void rows_times_widened(const IntegerTile& t, std::int64_t first) {
  IntVec acc[kCount][2];
  sum_tile<kCount>(t, first, 0, 1, acc);
  const Vec scales[2] = {load(t.scales), load(t.scales + kLanes)};
  Vec bias[2] = {};
  if (t.bias) bias[0] = load(t.bias), bias[1] = load(t.bias + kLanes);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kCount; ++r) {
    float* y = t.sums + (first + r) * t.lds;
    const float* residual = t.residual + (first + r) * t.ld_residual;
    for (std::int64_t v = 0; v < 2; ++v) {
      const Vec sum = to_float(acc[r][v]) * (scales[v] * t.rows.scales[first + r]) + bias[v],
                value = activated<kActivation, true>(sum);
      store(y + v * kLanes, kAdds ? value + load(residual + v * kLanes) : value);
    }
  }
}

template <Activation kActivation, bool kAdds>
void widened_tile(const IntegerTile& t) {
  for_tile_rows(t.m, [&]<std::int64_t kCount>(std::int64_t r) {
    rows_times_widened<kCount, kActivation, kAdds>(t, r);
  });
}

void integer_tile(const IntegerTile& t) {
  if (t.group != t.k) {
    return for_tile_rows(
        t.m, [&]<std::int64_t kCount>(std::int64_t r) { rows_times_groups<kCount>(t, r); });
  }
  if (t.activation == Activation::gelu) return widened_tile<Activation::gelu, false>(t);
  if (t.activation == Activation::gelu_tanh) return widened_tile<Activation::gelu_tanh, false>(t);
  if (t.residual) return widened_tile<Activation::none, true>(t);
  widened_tile<Activation::none, false>(t);
}

/// kCount rows of kRowParts parts each.
template <std::int64_t kCount>
TESSERA_INLINE void rows_times_bytes(const IntegerRows& rows, const std::uint8_t* panel,
                                     const float* scales, std::int64_t k, float* sums) {
  constexpr std::int64_t kAll = kCount * kRowParts;
  const RowNumber* a = row_of(rows, 0);
  IntVec acc[kAll][2];
  for (std::int64_t r = 0; r < kAll; ++r)
    acc[r][0] = acc[r][1] = start_of(rows, r, 1, 0) - IntVec{};
  for (std::int64_t i = 0; i < k; i += kDepth) {
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < 2; ++v) {
      prefetch_ahead(panel + i * kPanel + v * kVector);
      const WeightVec w = load_bytes(panel + i * kPanel + v * kVector);
#pragma GCC unroll 6
      for (std::int64_t r = 0; r < kAll; ++r)
        acc[r][v] = add_products(acc[r][v], splat_word(a + r * rows.lda + i), w);
    }
  }
#pragma GCC unroll 6
  for (std::int64_t r = 0; r < kCount; ++r) {
    for (std::int64_t v = 0; v < 2; ++v) {
      Vec sum{};
      for (std::int64_t i = r * kRowParts; i < (r + 1) * kRowParts; ++i)
        sum += to_float(acc[i][v]) * rows.scales[i];
      store(sums + r * kPanel + v * kLanes, sum * load(scales + v * kLanes));
    }
  }
}

void few_rows8(const IntegerRows& rows, std::int64_t m, const std::uint8_t* panel,
               const float* scales, std::int64_t k, float* sums) {
  constexpr std::int64_t kMost = kFewIntegerRows / kRowParts;
  if (m == 1) return rows_times_bytes<1>(rows, panel, scales, k, sums);
  if (m == 2) return rows_times_bytes<2>(rows, panel, scales, k, sums);
  if constexpr (kMost > 3) {
    if (m == 3) return rows_times_bytes<3>(rows, panel, scales, k, sums);
    if (m == 4) return rows_times_bytes<4>(rows, panel, scales, k, sums);
    if (m == 5) return rows_times_bytes<5>(rows, panel, scales, k, sums);
  }
  rows_times_bytes<kMost>(rows, panel, scales, k, sums);
}

/// For 4-bit weights, each line of which takes longer than one of bytes.
constexpr std::int64_t kNibblesAhead = 6144;

/// The parts of a row as one: sums of 32 products of 4 bits and of 14, which floats hold exactly.
template <class Sum>
TESSERA_INLINE Sum whole(Sum high, Sum low) {
  return kRowParts == 2 ? high * (1 << kLowBits) + low : high;
}

template <std::int64_t kCount>
TESSERA_INLINE void rows_times_nibbles(const IntegerRows& rows, const NibblePanel& p,
                                       std::int64_t k, float* sums) {
  constexpr std::int64_t kAll = kCount * kRowParts, kLast = kRowParts - 1;
  const std::int64_t groups = k / kGroup;
  Vec total[kCount][2] = {};
  for (std::int64_t g = 0; g < groups; ++g) {
    IntVec acc[kAll][2] = {};
    for (std::int64_t b = g * kGroup / 8; b < (g + 1) * kGroup / 8; ++b) {
#pragma GCC unroll 2
      for (std::int64_t v = 0; v < 2; ++v) {
        WeightVec n[kParts];
        prefetch_ahead(p.weight + (2 * b + v) * kLanes, kNibblesAhead);
        unpack(p.weight + (2 * b + v) * kLanes, n);
#pragma GCC unroll 6
        for (std::int64_t r = 0; r < kAll; ++r) {
          const RowNumber* a = row_of(rows, r) + b * 8;
#pragma GCC unroll 4
          for (std::int64_t i = 0; i < kParts; ++i)
            acc[r][v] = add_products(acc[r][v], splat_word(a + kDepth * i), n[i]);
        }
      }
    }
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < 2; ++v) {
      const std::int64_t at = g * kPanel + v * kLanes;
      const Vec scale = from_bf16(p.scales + at), zero = to_float(from_bytes(p.zeros + at));
#pragma GCC unroll 4
      for (std::int64_t r = 0; r < kCount; ++r) {
        const std::int64_t i = r * kRowParts;
        const std::int32_t* group_sum = rows.group_sums + i * groups + g;
        const auto sum = static_cast<float>(whole(group_sum[0], group_sum[kLast * groups]));
        total[r][v] += (to_float(whole(acc[i][v], acc[i + kLast][v])) - zero * sum) * scale;
      }
    }
  }
  for (std::int64_t r = 0; r < kCount; ++r) {
    for (std::int64_t v = 0; v < 2; ++v)
      store(sums + r * kPanel + v * kLanes, total[r][v] * rows.scales[r * kRowParts + kLast]);
  }
}

void few_rows4(const IntegerRows& rows, std::int64_t m, const NibblePanel& panel, std::int64_t k,
               float* sums) {
  switch (m) {
    case 1:
      return rows_times_nibbles<1>(rows, panel, k, sums);
    case 2:
      return rows_times_nibbles<2>(rows, panel, k, sums);
    case 3:
      return rows_times_nibbles<3>(rows, panel, k, sums);
    default:  // more sums than registers would hold: in two goes
      few_rows4(rows, 3, panel, k, sums);
      constexpr std::int64_t kDone = 3 * kRowParts;
      return few_rows4({row_of(rows, kDone), rows.lda, rows.scales + kDone,
                        rows.group_sums + kDone * (k / kGroup)},
                       m - 3, panel, k, sums + 3 * kPanel);
  }
}

}  // namespace
}  // namespace tessera::kernels
