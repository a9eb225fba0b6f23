// Products of matrices that change from call to call; see training.h.
#pragma once
#include "core/kernels/half_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

/// The first kRows lanes.
template <class V>
TESSERA_INLINE void store_rows(float* to, V v) {
  static_assert(kRows <= kLanes);
  __builtin_memcpy(to, &v, kRows * sizeof(float));
}

/// Rows that lie too far apart to be foreseen: how long before they are packed to ask for them.
constexpr std::int64_t kPackedAhead = 16;

/// What lies as [k, m], a row at a time as they follow each other in memory.
TESSERA_INLINE void pack_turned_rows(const float* a, std::int64_t stride, std::int64_t m,
                                     std::int64_t k, float* to) {
  for (std::int64_t c = 0; c < k; ++c) {
    const float* from = a + c * stride;
    prefetch_row(from + kPackedAhead * stride, m);
    float* word = to + c * kRows;
    for (std::int64_t first = 0; first < m; first += kRows, word += k * kRows) {
      if (m - first >= kLanes) {
        store_rows(word, load(from + first));
        continue;
      }
      for (std::int64_t r = 0; r < kRows; ++r) word[r] = first + r < m ? from[first + r] : 0.0f;
    }
  }
}

#if TESSERA_VECTOR_BYTES == 64
/// Numbers of a and b, which of them told by those of 0 to 31, a vector's parts alike.
#define TESSERA_SHUFFLE(a, b, p, q, r, s)                                                    \
  __builtin_shufflevector(a, b, p, q, r, s, p + 4, q + 4, r + 4, s + 4, p + 8, q + 8, r + 8, \
                          s + 8, p + 12, q + 12, r + 12, s + 12)
/// Parts of four numbers: p and q of a, r and s of b.
#define TESSERA_PARTS(a, b, p, q, r, s)                                                         \
  __builtin_shufflevector(a, b, 4 * p, 4 * p + 1, 4 * p + 2, 4 * p + 3, 4 * q, 4 * q + 1,       \
                          4 * q + 2, 4 * q + 3, 4 * r + 16, 4 * r + 17, 4 * r + 18, 4 * r + 19, \
                          4 * s + 16, 4 * s + 17, 4 * s + 18, 4 * s + 19)
/// to[c][r] = row[r][c] of kRows rows; the others count for nothing.
TESSERA_INLINE void turn_rows(const Vec (&row)[16], float* to) {
  Vec four[16];  // column 4 l + j of rows i to i + 3 in part l of four[i + j]
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const Vec low = TESSERA_SHUFFLE(row[i], row[i + 1], 0, 16, 1, 17),
              high = TESSERA_SHUFFLE(row[i], row[i + 1], 2, 18, 3, 19),
              low_more = TESSERA_SHUFFLE(row[i + 2], row[i + 3], 0, 16, 1, 17),
              high_more = TESSERA_SHUFFLE(row[i + 2], row[i + 3], 2, 18, 3, 19);
    four[i] = TESSERA_SHUFFLE(low, low_more, 0, 1, 16, 17);
    four[i + 1] = TESSERA_SHUFFLE(low, low_more, 2, 3, 18, 19);
    four[i + 2] = TESSERA_SHUFFLE(high, high_more, 0, 1, 16, 17);
    four[i + 3] = TESSERA_SHUFFLE(high, high_more, 2, 3, 18, 19);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Vec low = TESSERA_PARTS(four[j], four[j + 4], 0, 1, 0, 1),
              high = TESSERA_PARTS(four[j], four[j + 4], 2, 3, 2, 3),
              low_more = TESSERA_PARTS(four[j + 8], four[j + 12], 0, 1, 0, 1),
              high_more = TESSERA_PARTS(four[j + 8], four[j + 12], 2, 3, 2, 3);
    const Vec columns[4] = {
        TESSERA_PARTS(low, low_more, 0, 2, 0, 2), TESSERA_PARTS(low, low_more, 1, 3, 1, 3),
        TESSERA_PARTS(high, high_more, 0, 2, 0, 2), TESSERA_PARTS(high, high_more, 1, 3, 1, 3)};
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) store_rows(to + (4 * l + j) * kRows, columns[l]);
  }
}
#undef TESSERA_SHUFFLE
#undef TESSERA_PARTS
/// Of kRows whole rows, as many columns as there are whole vectors; their number.
TESSERA_INLINE std::int64_t pack_whole_vectors(const float* from, std::int64_t stride,
                                               std::int64_t k, float* to) {
  std::int64_t c = 0;
  for (; c + kLanes <= k; c += kLanes) {
    Vec row[16] = {};
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) row[r] = load(from + r * stride + c);
    turn_rows(row, to + c * kRows);
  }
  return c;
}
#else
TESSERA_INLINE std::int64_t pack_whole_vectors(const float*, std::int64_t, std::int64_t, float*) {
  return 0;
}
#endif

void pack_rows(const float* a, std::int64_t stride, bool turned, std::int64_t m, std::int64_t k,
               float* to) {
  if (turned) return pack_turned_rows(a, stride, m, k, to);
  for (std::int64_t first = 0; first < m; first += kRows, to += k * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    const float* from = a + first * stride;
    if (count == kRows) {
      for (std::int64_t c = pack_whole_vectors(from, stride, k, to); c < k; ++c) {
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

/// A panel of fewer columns; zeros for those that are missing.
template <class From>
void turn_last_panel(const From* b, std::int64_t stride, std::int64_t n, std::int64_t k,
                     float* to) {
  for (std::int64_t i = 0; i < k * kPanel; ++i) to[i] = 0.0f;
  constexpr std::int64_t kStep = 16;  // a cache line of each row at a time
  for (std::int64_t c0 = 0; c0 < k; c0 += kStep) {
    const std::int64_t c1 = c0 + kStep < k ? c0 + kStep : k;
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t c = c0; c < c1; ++c) to[c * kPanel + j] = number_at(b + j * stride + c);
    }
  }
}

/// Columns that lie as rows -> panels of them.
template <class From>
void turn_columns(const From* b, std::int64_t stride, std::int64_t n, std::int64_t k, float* to) {
  for (; n >= kPanel; n -= kPanel, b += kPanel * stride, to += k * kPanel)
    turn_panel(b, stride, k, to);
  if (n > 0) turn_last_panel(b, stride, n, k, to);
}

void pack_columns(const float* b, std::int64_t stride, bool turned, std::int64_t n, std::int64_t k,
                  float* to) {
  if (turned) return turn_columns(b, stride, n, k, to);
  for (std::int64_t c = 0; c < k; ++c, b += stride) {
    float* word = to + c * kPanel;
    std::int64_t j = 0;
    for (; j + kPanel <= n; j += kPanel, word += k * kPanel) {
      store(word, load(b + j));
      store(word + kLanes, load(b + j + kLanes));
    }
    for (std::int64_t i = 0; j < n && i < kPanel; ++i) word[i] = j + i < n ? b[j + i] : 0.0f;
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

/// Of kRows whole rows, as many numbers as are packed by vectors.
TESSERA_INLINE std::int64_t pack_whole_pairs(const float* from, std::int64_t stride, std::int64_t k,
                                             float* to) {
  std::int64_t c = 0;
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
  for (; c + 2 * kLanes <= k; c += 2 * kLanes) {
    __m512 row[16] = {};
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float* numbers = from + r * stride + c;
      row[r] =
          (__m512)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(numbers + kLanes), _mm512_loadu_ps(numbers));
    }
    turn_rows(row, to + c / 2 * kRows);
  }
#endif
  return c;
}

/// What lies as [k, m], two rows at a time as they follow each other in memory.
TESSERA_INLINE void pack_turned_row_pairs(const float* a, std::int64_t stride, std::int64_t m,
                                          std::int64_t k, float* to) {
  const std::int64_t words = (k + 1) / 2;
  for (std::int64_t c = 0; c < k; c += 2) {
    const float *low = a + c * stride, *high = c + 1 < k ? low + stride : nullptr;
    prefetch_row(low + kPackedAhead * stride, m);
    prefetch_row(low + (kPackedAhead + 1) * stride, m);
    float* word = to + c / 2 * kRows;
    for (std::int64_t first = 0; first < m; first += kRows, word += words * kRows) {
      if (m - first >= kLanes) {
        store_rows(word, pairs_of(load(low + first), high ? load(high + first) : Vec{}));
        continue;
      }
      for (std::int64_t r = 0; r < kRows; ++r) {
        word[r] = first + r < m ? word_of(low[first + r], high ? high[first + r] : 0.0f) : 0.0f;
      }
    }
  }
}

/// pack_rows of pairs.
void pack_row_pairs(const float* a, std::int64_t stride, bool turned, std::int64_t m,
                    std::int64_t k, float* to) {
  if (turned) return pack_turned_row_pairs(a, stride, m, k, to);
  const std::int64_t words = (k + 1) / 2;
  for (std::int64_t first = 0; first < m; first += kRows, to += words * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    const float* from = a + first * stride;
    std::int64_t c = count == kRows ? pack_whole_pairs(from, stride, k, to) : 0;
    for (; c < k; c += 2) {
      for (std::int64_t r = 0; r < kRows; ++r) {
        const float* low = from + r * stride + c;
        to[c / 2 * kRows + r] = r < count ? word_of(low[0], c + 1 < k ? low[1] : 0.0f) : 0.0f;
      }
    }
  }
}

/// A panel of columns that lie as rows, as pairs.
TESSERA_INLINE void turn_column_pairs(const float* b, std::int64_t stride, std::int64_t n,
                                      std::int64_t k, float* to) {
  constexpr std::int64_t kNear = 512;
  alignas(64) std::uint16_t near[kPanel * kNear];
  for (std::int64_t c = 0; c < k; c += kNear) {
    const std::int64_t depth = k - c < kNear ? k - c : kNear, words = (depth + 1) / 2;
    for (std::int64_t j = 0; j < n; ++j)
      round_row(b + j * stride + c, depth, 2 * words, near + j * 2 * words);
    turn_columns(reinterpret_cast<const float*>(near), words, n, words, to + c / 2 * kPanel);
  }
}

/// pack_columns of pairs.
void pack_column_pairs(const float* b, std::int64_t stride, bool turned, std::int64_t n,
                       std::int64_t k, float* to) {
  const std::int64_t words = (k + 1) / 2;
  if (turned) {
    for (std::int64_t j = 0; j < n; j += kPanel, to += words * kPanel)
      turn_column_pairs(b + j * stride, stride, n - j < kPanel ? n - j : kPanel, k, to);
    return;
  }
  for (std::int64_t c = 0; c < k; c += 2) {
    const float *low = b + c * stride, *high = c + 1 < k ? low + stride : nullptr;
    float* word = to + c / 2 * kPanel;
    std::int64_t j = 0;
    for (; j + kPanel <= n; j += kPanel, word += words * kPanel) {
      store_pairs(word, load(low + j), high ? load(high + j) : Vec{});
      store_pairs(word + kLanes, load(low + j + kLanes), high ? load(high + j + kLanes) : Vec{});
    }
    for (std::int64_t i = 0; j < n && i < kPanel; ++i)
      word[i] = j + i < n ? word_of(low[j + i], high ? high[j + i] : 0.0f) : 0.0f;
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

/// A line of memory, past the caches. Others see it after the next locked instruction, such as what
/// a thread takes its next task with.
TESSERA_INLINE void store_past(float* to, Vec v) {
#if TESSERA_VECTOR_BYTES == 64
  _mm512_stream_ps(to, (__m512)v);
#else
  store(to, v);
#endif
}

/// What tells a prefetch to stop at the second cache.
constexpr int kSecondCache = 2;

template <bool kPairs>
void product_tile(const ProductTile& t) {
  Vec acc[kRows][2] = {};
  const float *a = t.a, *b = t.b;
  const auto steps = [&](std::int64_t n) {
    for (; n > 0; --n, a += kRows, b += kPanel) {
      const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < kRows; ++r) {
        acc[r][0] = add_words<kPairs>(acc[r][0], a + r, b0);
        acc[r][1] = add_words<kPairs>(acc[r][1], a + r, b1);
      }
    }
  };
  // Meanwhile memory is asked for where results go and for the next panel, few lines at a time.
  std::int64_t left = t.k;
  for (std::int64_t r = 0; r < t.rows && left > 1 && !t.passes_by; ++r, left -= 2) {
    const float *c = t.c + r * t.ldc, *initial = t.initial + r * t.ld_initial;
    for (std::int64_t v = 0; v < 2; ++v) {
      __builtin_prefetch(c + v * kLanes, 1);
      if (t.initial && initial != c) __builtin_prefetch(initial + v * kLanes);
    }
    steps(2);
  }
  if (t.next_lines > 0) {
    const std::int64_t each = left / t.next_lines > 0 ? left / t.next_lines : 1;
    const float* ask = t.next;
    for (; left >= each && ask < t.next + t.next_lines * kLineNumbers;
         left -= each, ask += kLineNumbers) {
      __builtin_prefetch(ask, 0, kSecondCache);
      steps(each);
    }
  }
  steps(left);
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
    if (t.passes_by) {
      store_past(t.c + r * t.ldc, y0);
      store_past(t.c + r * t.ldc + kLanes, y1);
      continue;
    }
    store(t.c + r * t.ldc, y0);
    store(t.c + r * t.ldc + kLanes, y1);
  }
}

}  // namespace
}  // namespace tessera::kernels
