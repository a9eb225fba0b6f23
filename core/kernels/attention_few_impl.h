// Attention of few queries over some of the keys, as they lie; see vector.h.
#pragma once
#include "core/kernels/half_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kKeysAtOnce = 4;
/// Keys and values are read a head's piece of four rows at a time, which no processor foresees:
/// rows to ask memory for in advance.
constexpr std::int64_t kRowsAhead = 4 * kKeysAtOnce;

/// The sum of each vector.
TESSERA_INLINE void sums_of(const Vec (&v)[kKeysAtOnce], float* to) {
#if TESSERA_VECTOR_BYTES >= 32 && defined(__AVX2__)
  __m256 half[kKeysAtOnce];
  for (std::int64_t j = 0; j < kKeysAtOnce; ++j) {
#if TESSERA_VECTOR_BYTES == 64
    // masked, though nothing is masked out: GCC 12 warns of the plain forms
    half[j] = _mm256_add_ps((__m256)_mm512_maskz_extractf64x4_pd(0xf, (__m512d)v[j], 0),
                            (__m256)_mm512_maskz_extractf64x4_pd(0xf, (__m512d)v[j], 1));
#else
    half[j] = (__m256)v[j];
#endif
  }
  const __m256 pairs =
      _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
  for (std::int64_t j = 0; j < kKeysAtOnce; ++j) to[j] = sum_of(v[j]);
#endif
}

/// Scores of one head's query with kCount keys.
template <std::int64_t kCount, class Number>
TESSERA_INLINE void score(const float* q, const Number* k, std::int64_t ldk, std::int64_t width,
                          float scale, float* scores) {
  const std::int64_t whole = width / kLanes * kLanes;
  Vec sums[kKeysAtOnce] = {};
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    const Vec x = load(q + c);
#pragma GCC unroll 4
    for (std::int64_t j = 0; j < kCount; ++j) {
      __builtin_prefetch(k + (j + kRowsAhead) * ldk + c);
      sums[j] += x * numbers_at(k + j * ldk + c);
    }
  }
  float dots[kKeysAtOnce];
  sums_of(sums, dots);
  for (std::int64_t j = 0; j < kCount; ++j) {
    for (std::int64_t c = whole; c < width; ++c) dots[j] += q[c] * number_at(k + j * ldk + c);
    scores[j] = dots[j] * scale;
  }
}

/// out += the sum of kCount values, each times its weight.
template <std::int64_t kCount, class Number>
TESSERA_INLINE void add_values(const float* weights, const Number* v, std::int64_t ldv,
                               std::int64_t width, float* out) {
  const std::int64_t whole = width / kLanes * kLanes;
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    Vec sum = load(out + c);
#pragma GCC unroll 4
    for (std::int64_t j = 0; j < kCount; ++j)
      sum += splat(weights[j]) * numbers_at(v + j * ldv + c);
    store(out + c, sum);
  }
  for (std::int64_t c = whole; c < width; ++c) {
    for (std::int64_t j = 0; j < kCount; ++j) out[c] += weights[j] * number_at(v + j * ldv + c);
  }
}

/// Calls visit(row of queries and heads, its head of keys) in the order of the keys' heads.
template <class Visit>
TESSERA_INLINE void for_each_head(const AttentionPart& a, Visit visit) {
  const std::int64_t group = a.heads / a.kv_heads;
  for (std::int64_t i = 0; i < a.queries; ++i) {
    for (std::int64_t h = 0; h < a.kv_heads; ++h) {
      for (std::int64_t g = 0; g < group; ++g) visit(i, h * group + g, h);
    }
  }
}

template <std::int64_t kCount, class Number>
TESSERA_INLINE void score_all(const AttentionPart& a, std::int64_t j) {
  const auto* k = static_cast<const Number*>(a.rows.k) + j * a.rows.ldk;
  for_each_head(a, [&](std::int64_t i, std::int64_t head, std::int64_t kv_head) {
    score<kCount>(a.q + i * a.ldq + head * a.width, k + kv_head * a.width, a.rows.ldk, a.width,
                  a.scale, a.scores + (i * a.heads + head) * a.keys + j);
  });
}

template <std::int64_t kCount, class Number>
TESSERA_INLINE void add_all(const AttentionPart& a, std::int64_t j) {
  const auto* v = static_cast<const Number*>(a.rows.v) + j * a.rows.ldv;
  for_each_head(a, [&](std::int64_t i, std::int64_t head, std::int64_t kv_head) {
    const std::int64_t row = i * a.heads + head;
    add_values<kCount>(a.scores + row * a.keys + j, v + kv_head * a.width, a.rows.ldv, a.width,
                       a.out + row * a.width);
  });
}

/// Scores -> exponentials against their largest.
TESSERA_INLINE void exponentials(float* scores, std::int64_t keys, float& best, float& total) {
  const std::int64_t whole = keys / kLanes * kLanes;
  Vec high = splat(scores[0]), sums{};
  for (std::int64_t j = 0; j < whole; j += kLanes) high = larger(high, load(scores + j));
  best = max_of(high);
  for (std::int64_t j = whole; j < keys; ++j) best = scores[j] > best ? scores[j] : best;
  for (std::int64_t j = 0; j < whole; j += kLanes) {
    const Vec e = exp_negative(load(scores + j) - best);
    store(scores + j, e);
    sums += e;
  }
  total = sum_of(sums);
  for (std::int64_t j = whole; j < keys; ++j) {
    scores[j] = exp_negative(splat(scores[j] - best))[0];
    total += scores[j];
  }
}

#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
constexpr std::int64_t kPairLanes = 2 * kLanes;

/// score() of bf16 numbers as they are multiplied fastest, two at a time; the query is rounded.
template <std::int64_t kCount>
TESSERA_INLINE void score_pairs(const float* q, const std::uint16_t* k, std::int64_t ldk,
                                std::int64_t width, float scale, float* scores) {
  Vec sums[kKeysAtOnce] = {};
  for (std::int64_t c = 0; c < width; c += kPairLanes) {
    const auto x = (IntVec)_mm512_cvtne2ps_pbh((__m512)load(q + c + kLanes), (__m512)load(q + c));
#pragma GCC unroll 4
    for (std::int64_t j = 0; j < kCount; ++j) {
      __builtin_prefetch(k + (j + kRowsAhead) * ldk + c);
      sums[j] = add_pairs(sums[j], x, load_as<IntVec>(k + j * ldk + c));
    }
  }
  float dots[kKeysAtOnce];
  sums_of(sums, dots);
  for (std::int64_t j = 0; j < kCount; ++j) scores[j] = dots[j] * scale;
}

/// add_values() of rows j and j + 1 at a time, with rounded weights. Of each 32 columns, the sums
/// of 0-3, 8-11, 16-19, 24-27 come first: in_order() puts them right.
template <std::int64_t kCount>
TESSERA_INLINE void add_value_pairs(const std::uint16_t* weights, const std::uint16_t* v,
                                    std::int64_t ldv, std::int64_t width, float* out) {
  for (std::int64_t c = 0; c < width; c += kPairLanes) {
    Vec low = load(out + c), high = load(out + c + kLanes);
#pragma GCC unroll 4
    for (std::int64_t j = 0; j < kCount; j += 2) {
      const IntVec pair = splat_word(weights + j);
      __builtin_prefetch(v + (j + kRowsAhead) * ldv + c);
      __builtin_prefetch(v + (j + 1 + kRowsAhead) * ldv + c);
      const auto a = (__m512i)load_as<IntVec>(v + j * ldv + c),
                 b = (__m512i)load_as<IntVec>(v + (j + 1) * ldv + c);
      low = add_pairs(low, pair, (IntVec)_mm512_unpacklo_epi16(a, b));
      high = add_pairs(high, pair, (IntVec)_mm512_unpackhi_epi16(a, b));
    }
    store(out + c, low);
    store(out + c + kLanes, high);
  }
}

TESSERA_INLINE void in_order(float* out, std::int64_t width) {
  constexpr std::int64_t kQuarter = kLanes / 4;
  for (std::int64_t c = 0; c < width; c += kPairLanes) {
    float mixed[kPairLanes];
    for (std::int64_t i = 0; i < kPairLanes; ++i) mixed[i] = out[c + i];
    for (std::int64_t i = 0; i < kPairLanes; ++i) {
      const std::int64_t lane = i / (2 * kQuarter), within = i % (2 * kQuarter);
      const std::int64_t from = within < kQuarter ? 0 : kLanes;
      out[c + i] = mixed[from + lane * kQuarter + within % kQuarter];
    }
  }
}

/// Numbers -> bf16 numbers at the same place.
TESSERA_INLINE void round_in_place(float* x, std::int64_t n) {
  auto* to = reinterpret_cast<char*>(x);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto halves = _mm512_cvtneps_pbh((__m512)load(x + i));
    __builtin_memcpy(to + 2 * i, &halves, sizeof halves);
  }
  for (; i < n; ++i) {
    const auto half = static_cast<std::uint16_t>(pair_of(x[i], 0.0f));
    __builtin_memcpy(to + 2 * i, &half, sizeof half);
  }
}

/// Keys and values in bf16, whole pairs of lanes wide, an even number of them.
TESSERA_INLINE void attention_part_pairs(const AttentionPart& a) {
  const std::int64_t rows = a.queries * a.heads, whole = a.keys / kKeysAtOnce * kKeysAtOnce;
  const auto scores_of = [&](std::int64_t j, const auto& score) {
    const auto* k = static_cast<const std::uint16_t*>(a.rows.k) + j * a.rows.ldk;
    for_each_head(a, [&](std::int64_t i, std::int64_t head, std::int64_t kv_head) {
      score(a.q + i * a.ldq + head * a.width, k + kv_head * a.width, a.rows.ldk, a.width, a.scale,
            a.scores + (i * a.heads + head) * a.keys + j);
    });
  };
  for (std::int64_t j = 0; j < whole; j += kKeysAtOnce) scores_of(j, score_pairs<kKeysAtOnce>);
  if (whole < a.keys) scores_of(whole, score_pairs<2>);
  for (std::int64_t r = 0; r < rows; ++r) {
    float* own = a.scores + r * a.keys;
    exponentials(own, a.keys, a.best[r], a.total[r]);
    round_in_place(own, a.keys);
  }
  for (std::int64_t c = 0; c < rows * a.width; ++c) a.out[c] = 0.0f;
  const auto add = [&](std::int64_t j, const auto& values) {
    const auto* v = static_cast<const std::uint16_t*>(a.rows.v) + j * a.rows.ldv;
    for_each_head(a, [&](std::int64_t i, std::int64_t head, std::int64_t kv_head) {
      const std::int64_t row = i * a.heads + head;
      values(reinterpret_cast<const std::uint16_t*>(a.scores + row * a.keys) + j,
             v + kv_head * a.width, a.rows.ldv, a.width, a.out + row * a.width);
    });
  };
  for (std::int64_t j = 0; j < whole; j += kKeysAtOnce) add(j, add_value_pairs<kKeysAtOnce>);
  if (whole < a.keys) add(whole, add_value_pairs<2>);
  for (std::int64_t r = 0; r < rows; ++r) in_order(a.out + r * a.width, a.width);
}
#endif

template <class Number>
TESSERA_INLINE void attention_part_of(const AttentionPart& a) {
  const std::int64_t rows = a.queries * a.heads, whole = a.keys / kKeysAtOnce * kKeysAtOnce;
  for (std::int64_t j = 0; j < whole; j += kKeysAtOnce) score_all<kKeysAtOnce, Number>(a, j);
  for (std::int64_t j = whole; j < a.keys; ++j) score_all<1, Number>(a, j);
  for (std::int64_t r = 0; r < rows; ++r)
    exponentials(a.scores + r * a.keys, a.keys, a.best[r], a.total[r]);
  for (std::int64_t c = 0; c < rows * a.width; ++c) a.out[c] = 0.0f;
  for (std::int64_t j = 0; j < whole; j += kKeysAtOnce) add_all<kKeysAtOnce, Number>(a, j);
  for (std::int64_t j = whole; j < a.keys; ++j) add_all<1, Number>(a, j);
}

void attention_part_rows(const AttentionPart& a) {
#if TESSERA_VECTOR_BYTES == 64 && defined(__AVX512BF16__)
  if (a.rows.half && a.width % kPairLanes == 0 && a.keys % 2 == 0) return attention_part_pairs(a);
#endif
  if (a.rows.half) {
    attention_part_of<std::uint16_t>(a);
  } else {
    attention_part_of<float>(a);
  }
}

}  // namespace
}  // namespace tessera::kernels
