// Products of quantised numbers; see integer.h.
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

typedef std::int16_t ShortVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::uint16_t WordVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::int16_t HalfShortVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
typedef std::int8_t ByteVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));
typedef std::uint8_t QuarterByteVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 4)));
typedef std::uint16_t HalfWordVec __attribute__((vector_size(TESSERA_VECTOR_BYTES / 2)));

template <class V, class T>
TESSERA_INLINE V load_as(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// a[2i] * b[2i] + a[2i+1] * b[2i+1]
TESSERA_INLINE IntVec multiply_pairs(ShortVec a, ShortVec b) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif TESSERA_VECTOR_BYTES == 16 && defined(__SSE2__)
  return (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const IntVec x = (IntVec)a, y = (IntVec)b;
  return ((x << 16) >> 16) * ((y << 16) >> 16) + (x >> 16) * (y >> 16);
#endif
}

/// Bytes to 16 bits (which GCC's own conversion does in five steps where one instruction will do).
TESSERA_INLINE ShortVec widened(const std::int8_t* p) {
  const ByteVec bytes = load_as<ByteVec>(p);
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return (ShortVec)_mm512_cvtepi8_epi16((__m256i)bytes);
#elif TESSERA_VECTOR_BYTES == 32 && defined(__AVX2__)
  return (ShortVec)_mm256_cvtepi8_epi16((__m128i)bytes);
#else
  return __builtin_convertvector(bytes, ShortVec);
#endif
}

/// Two neighbouring 16-bit numbers in every lane.
TESSERA_INLINE ShortVec splat_pair(const std::int16_t* p) {
  std::int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return (ShortVec)(pair - IntVec{});
}
TESSERA_INLINE Vec to_float(IntVec v) { return __builtin_convertvector(v, Vec); }
TESSERA_INLINE Vec from_bf16(const std::uint16_t* p) {
  return (Vec)(__builtin_convertvector(load_as<HalfWordVec>(p), IntVec) << 16);
}
TESSERA_INLINE IntVec from_bytes(const std::uint8_t* p) {
  return __builtin_convertvector(load_as<QuarterByteVec>(p), IntVec);
}

float quantize_row(const float* x, std::int64_t k, std::int64_t padded, float limit,
                   std::int16_t* q) {
  const std::int64_t whole = k / kLanes * kLanes;
  Vec high{}, not_finite{};
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Vec v = load(x + i);
    high = larger(v < 0.0f ? -v : v, high);
    not_finite += v - v;
  }
  float most = max_of(high), check = sum_of(not_finite);
  for (std::int64_t i = whole; i < k; ++i) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    most = size > most ? size : most;
    check += x[i] - x[i];
  }
  const bool usable = check == 0.0f && most > 1e-30f;
  const float inverse = usable ? limit / most : 0.0f;
  const Vec round = splat(12582912.0f);  // 1.5 * 2^23, see exp_negative()
  if (usable) {
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      const IntVec n = (IntVec)(load(x + i) * inverse + round) - (IntVec)round;
      const HalfShortVec narrow = __builtin_convertvector(n, HalfShortVec);
      __builtin_memcpy(q + i, &narrow, sizeof narrow);
    }
  }
  for (std::int64_t i = usable ? whole : 0; i < padded; ++i)
    q[i] = i < k && usable ? static_cast<std::int16_t>(__builtin_rintf(x[i] * inverse)) : 0;
  return check == 0.0f ? (usable ? most / limit : 0.0f) : check;
}

void widen8(const std::int8_t* panel, std::int64_t k, std::int16_t* to) {
  for (std::int64_t i = 0; i < k * kPanel; i += 2 * kLanes) {
    const ShortVec wide = widened(panel + i);
    __builtin_memcpy(to + i, &wide, sizeof wide);
  }
}

/// The four numbers of each 16-bit word.
TESSERA_INLINE void unpack(const std::uint16_t* words, ShortVec (&n)[4]) {
  const WordVec x = load_as<WordVec>(words);
  n[0] = (ShortVec)(x & 15);
  n[1] = (ShortVec)((x >> 4) & 15);
  n[2] = (ShortVec)((x >> 8) & 15);
  n[3] = (ShortVec)(x >> 12);
}

void widen4(const NibblePanel& p, std::int64_t k, std::int16_t* to, float* scales) {
  for (std::int64_t g = 0; g < k / kGroup; ++g) {
    for (std::int64_t v = 0; v < 2; ++v) {
      const std::int64_t at = g * kPanel + v * kLanes;
      store(scales + at, from_bf16(p.scales + at));
      const IntVec zero = from_bytes(p.zeros + at);
      const ShortVec zeros = (ShortVec)(zero | (zero << 16));
      for (std::int64_t b = g * kGroup / 8; b < (g + 1) * kGroup / 8; ++b) {
        ShortVec n[4];
        unpack(p.weight + (2 * b + v) * 2 * kLanes, n);
        for (std::int64_t i = 0; i < 4; ++i) {
          const ShortVec wide = n[i] - zeros;
          __builtin_memcpy(to + ((4 * b + i) * 2 + v) * 2 * kLanes, &wide, sizeof wide);
        }
      }
    }
  }
}

template <std::int64_t kCount>
TESSERA_INLINE void rows_times_widened(const IntegerTile& t, std::int64_t first) {
  const std::int16_t* a = t.rows.a + first * t.rows.lda;
  for (std::int64_t g = 0; g < t.k / t.group; ++g) {
    IntVec acc[kCount][2] = {};
    for (std::int64_t i = g * t.group; i < (g + 1) * t.group; i += 2) {
      const std::int16_t* w = t.weight + i * kPanel;
      const ShortVec w0 = load_as<ShortVec>(w), w1 = load_as<ShortVec>(w + 2 * kLanes);
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < kCount; ++r) {
        const ShortVec x = splat_pair(a + r * t.rows.lda + i);
        acc[r][0] += multiply_pairs(x, w0);
        acc[r][1] += multiply_pairs(x, w1);
      }
    }
    const float* scales = t.scales + g * kPanel;
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kCount; ++r) {
      float* sums = t.sums + (first + r) * kPanel;
      for (std::int64_t v = 0; v < 2; ++v) {
        const Vec value =
            to_float(acc[r][v]) * (load(scales + v * kLanes) * t.rows.scales[first + r]);
        store(sums + v * kLanes, g ? load(sums + v * kLanes) + value : value);
      }
    }
  }
}

void integer_tile(const IntegerTile& t) {
  std::int64_t r = 0;
  for (; r + kRows <= t.m; r += kRows) rows_times_widened<kRows>(t, r);
  for (; r + 4 <= t.m; r += 4) rows_times_widened<4>(t, r);
  for (; r + 2 <= t.m; r += 2) rows_times_widened<2>(t, r);
  if (r < t.m) rows_times_widened<1>(t, r);
}

template <std::int64_t kCount>
TESSERA_INLINE void rows_times_bytes(const IntegerRows& rows, const std::int8_t* panel,
                                     const float* scales, std::int64_t k, float* sums) {
  IntVec acc[kCount][2] = {};
  for (std::int64_t i = 0; i < k; i += 2) {
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < 2; ++v) {
      const ShortVec w = widened(panel + i * kPanel + v * 2 * kLanes);
#pragma GCC unroll 6
      for (std::int64_t r = 0; r < kCount; ++r)
        acc[r][v] += multiply_pairs(splat_pair(rows.a + r * rows.lda + i), w);
    }
  }
  for (std::int64_t r = 0; r < kCount; ++r) {
    for (std::int64_t v = 0; v < 2; ++v) {
      store(sums + r * kPanel + v * kLanes,
            to_float(acc[r][v]) * (load(scales + v * kLanes) * rows.scales[r]));
    }
  }
}

void few_rows8(const IntegerRows& rows, std::int64_t m, const std::int8_t* panel,
               const float* scales, std::int64_t k, float* sums) {
  switch (m) {
    case 1:
      return rows_times_bytes<1>(rows, panel, scales, k, sums);
    case 2:
      return rows_times_bytes<2>(rows, panel, scales, k, sums);
    case 3:
      return rows_times_bytes<3>(rows, panel, scales, k, sums);
    case 4:
      return rows_times_bytes<4>(rows, panel, scales, k, sums);
    case 5:
      return rows_times_bytes<5>(rows, panel, scales, k, sums);
    default:
      return rows_times_bytes<6>(rows, panel, scales, k, sums);
  }
}

template <std::int64_t kCount>
TESSERA_INLINE void rows_times_nibbles(const IntegerRows& rows, const NibblePanel& p,
                                       std::int64_t k, float* sums) {
  const std::int64_t groups = k / kGroup;
  Vec total[kCount][2] = {};
  for (std::int64_t g = 0; g < groups; ++g) {
    IntVec acc[kCount][2] = {};
    for (std::int64_t b = g * kGroup / 8; b < (g + 1) * kGroup / 8; ++b) {
#pragma GCC unroll 2
      for (std::int64_t v = 0; v < 2; ++v) {
        ShortVec n[4];
        unpack(p.weight + (2 * b + v) * 2 * kLanes, n);
#pragma GCC unroll 4
        for (std::int64_t r = 0; r < kCount; ++r) {
          const std::int16_t* a = rows.a + r * rows.lda + b * 8;
#pragma GCC unroll 4
          for (std::int64_t i = 0; i < 4; ++i)
            acc[r][v] += multiply_pairs(splat_pair(a + 2 * i), n[i]);
        }
      }
    }
#pragma GCC unroll 2
    for (std::int64_t v = 0; v < 2; ++v) {
      const std::int64_t at = g * kPanel + v * kLanes;
      const Vec scale = from_bf16(p.scales + at), zero = to_float(from_bytes(p.zeros + at));
#pragma GCC unroll 4
      for (std::int64_t r = 0; r < kCount; ++r)
        total[r][v] += (to_float(acc[r][v]) - zero * rows.group_sums[r * groups + g]) * scale;
    }
  }
  for (std::int64_t r = 0; r < kCount; ++r) {
    for (std::int64_t v = 0; v < 2; ++v)
      store(sums + r * kPanel + v * kLanes, total[r][v] * rows.scales[r]);
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
    case 4:
      return rows_times_nibbles<4>(rows, panel, k, sums);
    default:  // more sums than registers would hold: in two goes
      few_rows4(rows, 3, panel, k, sums);
      return few_rows4(
          {rows.a + 3 * rows.lda, rows.lda, rows.scales + 3, rows.group_sums + 3 * (k / kGroup)},
          m - 3, panel, k, sums + 3 * kPanel);
  }
}

}  // namespace
}  // namespace tessera::kernels
