// What the vector kernels (*_impl.h) are written with: the compilers' vector types in the width of
// the instruction set for which the including file is compiled. That file defines
// TESSERA_VECTOR_BYTES and TESSERA_TILE_ROWS. Nothing here or there may call inline functions of
// the standard library: the linker could pick this file's copy, made for a newer machine, for the
// whole program.
#pragma once
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "core/kernels/vector.h"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kLanes = TESSERA_VECTOR_BYTES / 4;
constexpr std::int64_t kPanel = 2 * kLanes;
constexpr std::int64_t kRows = TESSERA_TILE_ROWS;
static_assert(kQueryBlock % kRows == 0 && kKeyBlock % kPanel == 0);

typedef float Vec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::int32_t IntVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::uint32_t BitVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));

#define TESSERA_INLINE inline __attribute__((always_inline))

TESSERA_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
TESSERA_INLINE V load_as(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
/// Asks memory for what comes kBytesAhead after p, for weights that are read once, one panel after
/// the other: what a processor foresees by itself ends with each page.
constexpr std::int64_t kBytesAhead = 2048;
TESSERA_INLINE void prefetch_ahead(const void* p, std::int64_t bytes = kBytesAhead) {
  __builtin_prefetch(static_cast<const char*>(p) + bytes);
}
/// Asks memory for n numbers, line by line.
TESSERA_INLINE void prefetch_row(const float* row, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLineNumbers) __builtin_prefetch(row + i);
}
TESSERA_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
TESSERA_INLINE Vec from_bf16(const std::uint16_t* p) {
  typedef std::uint16_t HalfWordVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
#if TESSERA_VECTOR_BYTES == 64  // GCC 12 takes five instructions for what is one
  return (Vec)((IntVec)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)load_as<HalfWordVec>(p)) << 16);
#else
  return (Vec)(__builtin_convertvector(load_as<HalfWordVec>(p), IntVec) << 16);
#endif
}
/// Numbers of either type as floats.
TESSERA_INLINE float number_at(const float* p) { return *p; }
TESSERA_INLINE float number_at(const std::uint16_t* p) {
  const std::uint32_t bits = std::uint32_t{*p} << 16;
  float number;
  __builtin_memcpy(&number, &bits, sizeof number);
  return number;
}
TESSERA_INLINE Vec numbers_at(const float* p) { return load(p); }
TESSERA_INLINE Vec numbers_at(const std::uint16_t* p) { return from_bf16(p); }
TESSERA_INLINE Vec splat(float x) { return x - Vec{}; }
/// The numbers that make up a lane, which lie side by side, in every lane.
template <class Number>
TESSERA_INLINE IntVec splat_word(const Number* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return word - IntVec{};
}

TESSERA_INLINE float sum_of(Vec v) {
  float sum = 0;
  for (std::int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}
/// All lanes put together by `put`, which takes two vectors of eight or both halves of one.
#if TESSERA_VECTOR_BYTES == 64
template <class Put>
TESSERA_INLINE std::int32_t lanes_together(IntVec v, const Put& put) {
  __m256i half = put(_mm512_maskz_extracti64x4_epi64(15, (__m512i)v, 0),
                     _mm512_maskz_extracti64x4_epi64(15, (__m512i)v, 1));
  half = put(half, _mm256_permute2x128_si256(half, half, 1));
  half = put(half, _mm256_shuffle_epi32(half, 0x4e));
  return _mm256_cvtsi256_si32(put(half, _mm256_shuffle_epi32(half, 0xb1)));
}
#endif
/// sum_of() in another order, without taking all lanes out one by one.
TESSERA_INLINE float quick_sum_of(Vec v) {
#if TESSERA_VECTOR_BYTES == 64
  return __builtin_bit_cast(float, lanes_together((IntVec)v, [](__m256i a, __m256i b) {
                              return (__m256i)_mm256_add_ps((__m256)a, (__m256)b);
                            }));
#else
  typedef float Quad __attribute__((vector_size(16)));
  float lanes[kLanes];
  store(lanes, v);
  Quad sums = load_as<Quad>(lanes);
  for (std::int64_t i = 4; i < kLanes; i += 4) sums += load_as<Quad>(lanes + i);
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
#endif
}
TESSERA_INLINE float max_of(Vec v) {
#if TESSERA_VECTOR_BYTES == 64
  return __builtin_bit_cast(float, lanes_together((IntVec)v, [](__m256i a, __m256i b) {
                              return (__m256i)_mm256_max_ps((__m256)a, (__m256)b);
                            }));
#else
  float best = v[0];
  for (std::int64_t i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
#endif
}
/// One instruction where the compiler takes a comparison and a choice.
TESSERA_INLINE Vec larger(Vec a, Vec b) {
#if TESSERA_VECTOR_BYTES == 64
  return (Vec)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

/// 1.5 * 2^23: added to a number of up to 22 bits it leaves the nearest integer in the low bits,
/// and an integer added to its bits is added to the number itself.
constexpr float kIntegersFrom = 12582912.0f;

/// e^x for x <= 0 (relative error about 2e-7; 0 below -87): 2^n times a polynomial of degree 6 on
/// [-ln2/2, ln2/2].
TESSERA_INLINE Vec exp_negative(Vec x) {
  const Vec round = splat(kIntegersFrom);
  const Vec shifted = x * 1.44269504089f + round;
  const Vec n = shifted - round;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const BitVec exponent = ((BitVec)shifted - (BitVec)round) << 23;
  const Vec y = (Vec)((BitVec)p + exponent);
  return x < -87.0f ? Vec{} : y;
}

/// The same to a relative error of 5e-5, enough for what is rounded to bf16.
TESSERA_INLINE Vec exp_negative_coarse(Vec x) {
  const Vec round = splat(kIntegersFrom);
  const Vec shifted = x * 1.44269504089f + round;
  const Vec r = x - (shifted - round) * 0.69314718056f;
  const Vec p = ((r * 4.1665795894e-2f + 1.6666665459e-1f) * r + 0.5f) * (r * r) + (r + 1.0f);
  const Vec y = (Vec)((BitVec)p + (((BitVec)shifted - (BitVec)round) << 23));
  return x < -87.0f ? Vec{} : y;
}

/// Most rows that are left of whole tiles and computed in one go: the loop over k of one row takes
/// nearly as long as that of so many.
constexpr std::int64_t kLastRows = kRows < 7 ? kRows - 1 : 6;
/// Calls `rows` for the last m rows, at most kCount.
template <std::int64_t kCount = kLastRows, class Rows>
TESSERA_INLINE void for_last_rows(std::int64_t m, std::int64_t r, const Rows& rows) {
  if (m == kCount) return rows.template operator()<kCount>(r);
  if constexpr (kCount > 1) for_last_rows<kCount - 1>(m, r, rows);
}
/// Calls `rows`, which takes a compile-time number of rows and the first of them, for m rows.
template <class Rows>
TESSERA_INLINE void for_tile_rows(std::int64_t m, const Rows& rows) {
  std::int64_t r = 0;
  for (; r + kRows <= m; r += kRows) rows.template operator()<kRows>(r);
  if (r + kLastRows <= m) rows.template operator()<kLastRows>(r), r += kLastRows;
  for_last_rows(m - r, r, rows);
}

}  // namespace
}  // namespace tessera::kernels
