// Products of tiles, of f32 and of pairs of bf16 numbers; see half.h and vector.h.
#pragma once
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
constexpr bool kHasBf16 = true;
#else
constexpr bool kHasBf16 = false;
#endif

/// The nearest bf16 number (ties to even) of every lane, in its low half; what is above is zero.
TESSERA_INLINE BitVec rounded_bits(Vec v) {
  const BitVec bits = (BitVec)v, near = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return v == v ? near : (bits >> 16) | 0x40u;
}
/// Numbers `low` and `high` of every lane side by side.
TESSERA_INLINE IntVec pairs_of(Vec low, Vec high) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
  typedef std::uint16_t Halves __attribute__((vector_size(64)));
  const auto halves = (Halves)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  return (IntVec)__builtin_shufflevector(halves, halves, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                         6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                         14, 30, 15, 31);
#else
  return (IntVec)(rounded_bits(low) | (rounded_bits(high) << 16));
#endif
}
TESSERA_INLINE std::uint32_t pair_of(float low, float high) {
  const float both[2] = {low, high};
  std::uint32_t pair = 0;
  for (int i = 0; i < 2; ++i) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, both + i, sizeof bits);
    bits = both[i] == both[i] ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : (bits >> 16) | 0x40u;
    pair |= bits << (16 * i);
  }
  return pair;
}
/// Two neighbouring numbers as a pair, or one and zero.
TESSERA_INLINE std::uint32_t pair_at(const float* p, bool both) {
  return pair_of(p[0], both ? p[1] : 0.0f);
}
TESSERA_INLINE std::uint32_t pair_at(const std::uint16_t* p, bool both) {
  std::uint32_t pair = p[0];
  if (both) __builtin_memcpy(&pair, p, sizeof pair);
  return pair;
}
TESSERA_INLINE void round_to(Vec v, std::uint16_t* to) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
  const auto halves = _mm512_cvtneps_pbh((__m512)v);
#else
  typedef std::uint16_t HalfWordVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
  const auto halves = __builtin_convertvector(rounded_bits(v), HalfWordVec);
#endif
  __builtin_memcpy(to, &halves, sizeof halves);
}

/// sums + the products of pairs of bf16 numbers, both of a lane.
TESSERA_INLINE Vec add_pairs(Vec sums, IntVec a, IntVec b) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
  constexpr std::int32_t kHigh = -65536;
  return sums + (Vec)(a << 16) * (Vec)(b << 16) + (Vec)(a & kHigh) * (Vec)(b & kHigh);
#endif
}

/// sums + word * words: numbers, or pairs of bf16 numbers.
template <bool kPairs>
TESSERA_INLINE Vec add_words(Vec sums, const float* word, Vec words) {
  if constexpr (kPairs)
    return add_pairs(sums, splat_word(reinterpret_cast<const std::uint16_t*>(word)), (IntVec)words);
  return sums + splat(*word) * words;
}

/// c[kCount][kPanel] (row stride ldc) = or += a[kCount][words] * b[words][kPanel] (row stride ldb),
/// in words, numbers or pairs of bf16 numbers that follow each other along the sums; a's rows are
/// `row_step` apart, its columns `step`.
template <bool kPairs, std::int64_t kCount, bool kAccumulate>
TESSERA_INLINE void word_product(const float* a, std::int64_t row_step, std::int64_t step,
                                 const float* b, std::int64_t ldb, std::int64_t words, float* c,
                                 std::int64_t ldc) {
  Vec acc[kCount][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kCount; ++r) {
    acc[r][0] = kAccumulate ? load(c + r * ldc) : Vec{};
    acc[r][1] = kAccumulate ? load(c + r * ldc + kLanes) : Vec{};
  }
  for (std::int64_t i = 0; i < words; ++i) {
    if (kPairs && kCount <= 4) {  // waits for the memory of weights
      prefetch_ahead(b + i * ldb);
      prefetch_ahead(b + i * ldb + kLanes);
    }
    const Vec b0 = load(b + i * ldb), b1 = load(b + i * ldb + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kCount; ++r) {
      acc[r][0] = add_words<kPairs>(acc[r][0], a + r * row_step + i * step, b0);
      acc[r][1] = add_words<kPairs>(acc[r][1], a + r * row_step + i * step, b1);
    }
  }
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kCount; ++r) {
    store(c + r * ldc, acc[r][0]);
    store(c + r * ldc + kLanes, acc[r][1]);
  }
}

/// Pairs as words.
TESSERA_INLINE const float* words_at(const std::uint16_t* pairs) {
  return reinterpret_cast<const float*>(pairs);
}

void round_row(const float* x, std::int64_t k, std::int64_t padded, std::uint16_t* to) {
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) round_to(load(x + i), to + i);
  for (; i < padded; ++i) to[i] = static_cast<std::uint16_t>(i < k ? pair_of(x[i], 0.0f) : 0);
}

template <bool kAdds>
TESSERA_INLINE void half_tile_of(const HalfTile& t) {
  for_tile_rows(t.m, [&]<std::int64_t kCount>(std::int64_t r) {
    word_product<true, kCount, kAdds>(words_at(t.a + r * t.lda), t.lda / 2, 1, words_at(t.weight),
                                      kPanel, t.k / 2, t.sums + r * t.lds, t.lds);
  });
}

void half_tile(const HalfTile& t) {
  if (t.adds) return half_tile_of<true>(t);
  half_tile_of<false>(t);
}

}  // namespace
}  // namespace tessera::kernels
