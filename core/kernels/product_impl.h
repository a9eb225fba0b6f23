// Products of matrices that change from call to call; see training.h.
#include "core/kernels/half_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

/// What lies as [k, m]: a group of kRows at a time.
TESSERA_INLINE void pack_turned_rows(const float* a, std::int64_t stride, std::int64_t m,
                                     std::int64_t k, float* to) {
  for (std::int64_t first = 0; first < m; first += kRows, to += k * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    const float* from = a + first;
    if (m - first >= kLanes && m - first > kRows) {
      // a whole vector of each row: what is too much is written over by the next
      static_assert(kRows <= kLanes);
      for (std::int64_t c = 0; c < k; ++c) store(to + c * kRows, load(from + c * stride));
      continue;
    }
    for (std::int64_t c = 0; c < k; ++c) {
      for (std::int64_t r = 0; r < kRows; ++r)
        to[c * kRows + r] = r < count ? from[c * stride + r] : 0.0f;
    }
  }
}

void pack_rows(const float* a, std::int64_t stride, bool turned, std::int64_t m, std::int64_t k,
               float* to) {
  if (turned) return pack_turned_rows(a, stride, m, k, to);
  for (std::int64_t first = 0; first < m; first += kRows, to += k * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    const float* from = a + first * stride;
    if (count == kRows) {
      for (std::int64_t c = 0; c < k; ++c) {
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < kRows; ++r) to[c * kRows + r] = from[r * stride + c];
      }
      continue;
    }
    for (std::int64_t c = 0; c < k; ++c) {
      for (std::int64_t r = 0; r < kRows; ++r)
        to[c * kRows + r] = r < count ? from[r * stride + c] : 0.0f;
    }
  }
}

#if TESSERA_VECTOR_BYTES >= 32 && defined(__AVX2__)
TESSERA_INLINE __m256 eight_at(const float* p) { return _mm256_loadu_ps(p); }
TESSERA_INLINE __m256 eight_at(const std::uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return (__m256)_mm256_slli_epi32(wide, 16);
}

/// to[c][j] = from[j][c] of 8 x 8 numbers.
template <class From>
TESSERA_INLINE void turn_square(const From* from, std::int64_t stride, float* to) {
  __m256 row[8], pair[8], four[8];
#pragma GCC unroll 8
  for (std::int64_t j = 0; j < 8; ++j) row[j] = eight_at(from + j * stride);
#pragma GCC unroll 4
  for (std::int64_t j = 0; j < 8; j += 2) {
    pair[j] = _mm256_unpacklo_ps(row[j], row[j + 1]);
    pair[j + 1] = _mm256_unpackhi_ps(row[j], row[j + 1]);
  }
#pragma GCC unroll 2
  for (std::int64_t j = 0; j < 8; j += 4) {
    four[j] = _mm256_shuffle_ps(pair[j], pair[j + 2], 0x44);
    four[j + 1] = _mm256_shuffle_ps(pair[j], pair[j + 2], 0xee);
    four[j + 2] = _mm256_shuffle_ps(pair[j + 1], pair[j + 3], 0x44);
    four[j + 3] = _mm256_shuffle_ps(pair[j + 1], pair[j + 3], 0xee);
  }
#pragma GCC unroll 4
  for (std::int64_t c = 0; c < 4; ++c) {
    _mm256_storeu_ps(to + c * kPanel, _mm256_permute2f128_ps(four[c], four[c + 4], 0x20));
    _mm256_storeu_ps(to + (c + 4) * kPanel, _mm256_permute2f128_ps(four[c], four[c + 4], 0x31));
  }
}
constexpr std::int64_t kSquare = 8;
#else
template <class From>
TESSERA_INLINE void turn_square(const From* from, std::int64_t stride, float* to) {
  for (std::int64_t j = 0; j < 4; ++j) {
    for (std::int64_t c = 0; c < 4; ++c) to[c * kPanel + j] = number_at(from + j * stride + c);
  }
}
constexpr std::int64_t kSquare = 4;
#endif

/// A whole panel of columns that lie as rows.
template <class From>
void turn_panel(const From* b, std::int64_t stride, std::int64_t k, float* to) {
  const std::int64_t whole = k / kSquare * kSquare;
  for (std::int64_t c = 0; c < whole; c += kSquare) {
    for (std::int64_t j = 0; j < kPanel; j += kSquare)
      turn_square(b + j * stride + c, stride, to + c * kPanel + j);
  }
  for (std::int64_t c = whole; c < k; ++c) {
    for (std::int64_t j = 0; j < kPanel; ++j) to[c * kPanel + j] = number_at(b + j * stride + c);
  }
}

/// Columns that lie as rows, at most a panel of them; zeros for those that are missing.
template <class From>
TESSERA_INLINE void turn_columns(const From* b, std::int64_t stride, std::int64_t n, std::int64_t k,
                                 float* to) {
  if (n == kPanel) return turn_panel(b, stride, k, to);
  for (std::int64_t i = 0; i < k * kPanel; ++i) to[i] = 0.0f;
  constexpr std::int64_t kStep = 16;  // a cache line of each row at a time
  for (std::int64_t c0 = 0; c0 < k; c0 += kStep) {
    const std::int64_t c1 = c0 + kStep < k ? c0 + kStep : k;
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t c = c0; c < c1; ++c) to[c * kPanel + j] = number_at(b + j * stride + c);
    }
  }
}

void pack_half_columns(const std::uint16_t* b, std::int64_t stride, std::int64_t n, std::int64_t k,
                       float* to) {
  turn_columns(b, stride, n, k, to);
}

void pack_columns(const float* b, std::int64_t stride, bool turned, std::int64_t n, std::int64_t k,
                  float* to) {
  if (turned) return turn_columns(b, stride, n, k, to);
  if (n == kPanel) {
    for (std::int64_t c = 0; c < k; ++c) {
      store(to + c * kPanel, load(b + c * stride));
      store(to + c * kPanel + kLanes, load(b + c * stride + kLanes));
    }
    return;
  }
  for (std::int64_t c = 0; c < k; ++c) {
    for (std::int64_t j = 0; j < kPanel; ++j) to[c * kPanel + j] = j < n ? b[c * stride + j] : 0.0f;
  }
}

/// Words of numbers `low` and `high` of each lane, as bf16.
TESSERA_INLINE void store_pairs(float* to, Vec low, Vec high) {
  const IntVec pairs = pairs_of(low, high);
  __builtin_memcpy(to, &pairs, sizeof pairs);
}

TESSERA_INLINE float word_of(float low, float high) {
  return __builtin_bit_cast(float, pair_of(low, high));
}

/// pack_rows of pairs.
void pack_row_pairs(const float* a, std::int64_t stride, bool turned, std::int64_t m,
                    std::int64_t k, float* to) {
  const std::int64_t words = (k + 1) / 2;
  for (std::int64_t first = 0; first < m; first += kRows, to += words * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    const bool whole = m - first >= kLanes && m - first > kRows;  // see pack_turned_rows
    for (std::int64_t c = 0; turned && c < k; c += 2) {
      const float *low = a + c * stride + first, *high = c + 1 < k ? low + stride : nullptr;
      if (whole) {
        store_pairs(to + c / 2 * kRows, load(low), high ? load(high) : Vec{});
        continue;
      }
      for (std::int64_t r = 0; r < kRows; ++r)
        to[c / 2 * kRows + r] = r < count ? word_of(low[r], high ? high[r] : 0.0f) : 0.0f;
    }
    for (std::int64_t r = 0; !turned && r < kRows; ++r) {
      const float* from = a + (first + (r < count ? r : 0)) * stride;
      std::int64_t c = 0;
      for (; r < count && c + kLanes <= k; c += kLanes) {
        std::uint16_t near[kLanes];
        round_to(load(from + c), near);
#pragma GCC unroll 8
        for (std::int64_t i = 0; i < kLanes / 2; ++i)
          __builtin_memcpy(to + (c / 2 + i) * kRows + r, near + 2 * i, sizeof(float));
      }
      for (; c < k; c += 2) {
        to[c / 2 * kRows + r] = r < count ? word_of(from[c], c + 1 < k ? from[c + 1] : 0.0f) : 0.0f;
      }
    }
  }
}

/// pack_columns of pairs.
void pack_column_pairs(const float* b, std::int64_t stride, bool turned, std::int64_t n,
                       std::int64_t k, float* to) {
  const std::int64_t words = (k + 1) / 2;
  if (turned) {
    alignas(64) std::uint16_t near[kPanel * kMostPairedNumbers];
    for (std::int64_t j = 0; j < n; ++j)
      round_row(b + j * stride, k, 2 * words, near + j * 2 * words);
    turn_columns(reinterpret_cast<const float*>(near), words, n, words, to);
    return;
  }
  for (std::int64_t c = 0; c < k; c += 2) {
    const float *low = b + c * stride, *high = c + 1 < k ? low + stride : nullptr;
    float* word = to + c / 2 * kPanel;
    if (n == kPanel) {
      store_pairs(word, load(low), high ? load(high) : Vec{});
      store_pairs(word + kLanes, load(low + kLanes), high ? load(high + kLanes) : Vec{});
      continue;
    }
    for (std::int64_t j = 0; j < kPanel; ++j)
      word[j] = j < n ? word_of(low[j], high ? high[j] : 0.0f) : 0.0f;
  }
}

/// What a row of the tile starts from, for the columns that are there.
TESSERA_INLINE void product_edge(const ProductTile& t, const float* sums) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    for (std::int64_t j = 0; j < t.columns; ++j) {
      float y = sums[r * kPanel + j];
      if (t.bias) y += t.bias[j];
      if (t.initial) y += t.initial[r * t.ld_initial + j];
      t.c[r * t.ldc + j] = y;
    }
  }
}

/// sums + word * words.
template <bool kPairs>
TESSERA_INLINE Vec add_words(Vec sums, const float* word, Vec words) {
  if constexpr (kPairs)
    return add_pairs(sums, splat_pair(reinterpret_cast<const std::uint16_t*>(word)), (IntVec)words);
  return sums + splat(*word) * words;
}

template <bool kPairs>
void product_tile(const ProductTile& t) {
  Vec acc[kRows][2] = {};
  const float *a = t.a, *b = t.b;
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {  // what will be needed when the sums are there
    if (r < t.rows && t.initial) __builtin_prefetch(t.initial + r * t.ld_initial);
  }
  for (std::int64_t i = 0; i < t.k; ++i, a += kRows, b += kPanel) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      acc[r][0] = add_words<kPairs>(acc[r][0], a + r, b0);
      acc[r][1] = add_words<kPairs>(acc[r][1], a + r, b1);
    }
  }
  if (t.rows < kRows || t.columns < kPanel) {
    float sums[kRows * kPanel];
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      store(sums + r * kPanel, acc[r][0]);
      store(sums + r * kPanel + kLanes, acc[r][1]);
    }
    product_edge(t, sums);
    return;
  }
  Vec bias0{}, bias1{};
  if (t.bias) bias0 = load(t.bias), bias1 = load(t.bias + kLanes);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    Vec y0 = acc[r][0] + bias0, y1 = acc[r][1] + bias1;
    if (t.initial) {
      y0 += load(t.initial + r * t.ld_initial);
      y1 += load(t.initial + r * t.ld_initial + kLanes);
    }
    store(t.c + r * t.ldc, y0);
    store(t.c + r * t.ldc + kLanes, y1);
  }
}

}  // namespace
}  // namespace tessera::kernels
