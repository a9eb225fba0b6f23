// Attention in blocks with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022); see
// vector.h.
#pragma once
#include "core/kernels/half_impl.h"
#include "core/kernels/product_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

/// Keys, values and weights as they are.
struct Exact {
  typedef float Number;
  static constexpr std::int64_t kDepth = 1;  // numbers side by side in a lane

  template <class From>
  TESSERA_INLINE static void pack_keys(const From* k, std::int64_t ldk, std::int64_t count,
                                       std::int64_t width, float* panel) {
    turn_columns(k, ldk, count < kPanel ? count : kPanel, width, panel);
  }
  template <class From>
  TESSERA_INLINE static void pack_values(const From* v, std::int64_t, std::int64_t,
                                         std::int64_t width, std::int64_t padded, float* to) {
    for (std::int64_t c = 0; c < width; ++c) to[c] = number_at(v + c);
    for (std::int64_t c = width; c < padded; ++c) to[c] = 0.0f;
  }
  TESSERA_INLINE static void scale_row(const float* q, float scale, std::int64_t width, float* to) {
    for (std::int64_t c = 0; c < width; ++c) to[c] = q ? q[c] * scale : 0.0f;
  }
  TESSERA_INLINE static Vec exponential(Vec x) { return exp_negative(x); }
  TESSERA_INLINE static void put(float* row, std::int64_t j, Vec v) { store(row + j, v); }
  template <bool kAccumulate>
  TESSERA_INLINE static void product(const float* a, std::int64_t row_step, const float* b,
                                     std::int64_t ldb, std::int64_t steps, float* c,
                                     std::int64_t ldc) {
    word_product<false, kRows, kAccumulate>(a, row_step, 1, b, ldb, steps, c, ldc);
  }
};

/// Rounded to bf16, in pairs: of a key's numbers, and of a column of two neighbouring values.
struct Rounded {
  typedef std::uint16_t Number;
  static constexpr std::int64_t kDepth = 2;

  template <class From>
  TESSERA_INLINE static void pack_keys(const From* k, std::int64_t ldk, std::int64_t count,
                                       std::int64_t width, Number* panel) {
    const std::int64_t pairs = (width + 1) / 2;
    for (std::int64_t j = 0; j < kPanel; ++j) {
      const From* row = k + j * ldk;
      for (std::int64_t c = 0; c < pairs; ++c) {
        const std::uint32_t pair = j < count ? pair_at(row + 2 * c, 2 * c + 1 < width) : 0;
        __builtin_memcpy(panel + 2 * (c * kPanel + j), &pair, sizeof pair);
      }
    }
  }
  template <class From>
  TESSERA_INLINE static void pack_values(const From* v, std::int64_t ldv, std::int64_t count,
                                         std::int64_t width, std::int64_t padded, Number* to) {
    const From* next = v + ldv;
    std::int64_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      const IntVec pairs = pairs_of(numbers_at(v + c), count > 1 ? numbers_at(next + c) : Vec{});
      __builtin_memcpy(to + 2 * c, &pairs, sizeof pairs);
    }
    for (; c < padded; ++c) {
      std::uint32_t pair = 0;
      if (c < width) pair = pair_of(number_at(v + c), count > 1 ? number_at(next + c) : 0.0f);
      __builtin_memcpy(to + 2 * c, &pair, sizeof pair);
    }
  }
  TESSERA_INLINE static void scale_row(const float* q, float scale, std::int64_t width,
                                       Number* to) {
    std::int64_t c = 0;
    for (; q && c + kLanes <= width; c += kLanes) round_to(load(q + c) * scale, to + c);
    for (; c < width; c += 2) {
      const std::uint32_t pair =
          q ? pair_of(q[c] * scale, c + 1 < width ? q[c + 1] * scale : 0.0f) : 0;
      __builtin_memcpy(to + c, &pair, sizeof pair);
    }
  }
  TESSERA_INLINE static Vec exponential(Vec x) { return exp_negative_coarse(x); }
  TESSERA_INLINE static void put(Number* row, std::int64_t j, Vec v) { round_to(v, row + j); }
  template <bool kAccumulate>
  TESSERA_INLINE static void product(const Number* a, std::int64_t row_step, const Number* b,
                                     std::int64_t ldb, std::int64_t steps, float* c,
                                     std::int64_t ldc) {
    word_product<true, kRows, kAccumulate>(words_at(a), row_step / 2, 1, words_at(b), ldb / 2,
                                           steps, c, ldc);
  }
};

TESSERA_INLINE std::int64_t whole_panels(std::int64_t n) {
  return (n + kPanel - 1) / kPanel * kPanel;
}
template <class Scheme>
TESSERA_INLINE std::int64_t whole_lanes(std::int64_t n) {
  return (n + Scheme::kDepth - 1) / Scheme::kDepth * Scheme::kDepth;
}

template <class Scheme, class From>
TESSERA_INLINE void pack_rows_of_head(const KeyValueRows& rows, std::int64_t begin,
                                      std::int64_t end, std::int64_t width,
                                      typename Scheme::Number* keys,
                                      typename Scheme::Number* values) {
  const auto *k = static_cast<const From*>(rows.k), *v = static_cast<const From*>(rows.v);
  const std::int64_t padded = whole_panels(width), wide = whole_lanes<Scheme>(width);
  for (std::int64_t i = begin; i < end; i += kPanel)
    Scheme::pack_keys(k + i * rows.ldk, rows.ldk, end - i, width, keys + i * wide);
  for (std::int64_t i = begin; i < end; i += Scheme::kDepth)
    Scheme::pack_values(v + i * rows.ldv, rows.ldv, end - i, width, padded, values + i * padded);
}

template <class Scheme>
void pack_head(const KeyValueRows& rows, std::int64_t begin, std::int64_t end, std::int64_t width,
               void* keys, void* values, float* = nullptr) {
  typedef typename Scheme::Number Number;
  auto *to_keys = static_cast<Number*>(keys), *to_values = static_cast<Number*>(values);
  if (rows.half) {
    pack_rows_of_head<Scheme, std::uint16_t>(rows, begin, end, width, to_keys, to_values);
  } else {
    pack_rows_of_head<Scheme, float>(rows, begin, end, width, to_keys, to_values);
  }
}

template <class Scheme>
struct Scratch {
  typename Scheme::Number* q;  // [kQueryBlock, width], scaled
  /// [kQueryBlock, kKeyBlock]; then, row by row in the same place, their exponentials as Numbers
  float* scores;
  float* out;    // [kQueryBlock, padded width]
  float* best;   // [kQueryBlock] running maximum
  float* total;  // [kQueryBlock] running sum of exponentials
};

/// One row of scores -> exponentials against the running maximum; returns the factor for what was
/// summed before.
template <class Scheme>
TESSERA_INLINE float softmax_row(float* scores, std::int64_t padded_count, float& best,
                                 float& total) {
  auto* row = reinterpret_cast<typename Scheme::Number*>(scores);
  Vec high = splat(best), higher = high;
  for (std::int64_t j = 0; j < padded_count; j += kPanel) {
    high = larger(high, load(scores + j));
    higher = larger(higher, load(scores + j + kLanes));
  }
  const float now = max_of(larger(high, higher));
  const float factor = now == best ? 1.0f : exp_negative(splat(best - now))[0];
  Vec sums{}, more{};
  for (std::int64_t j = 0; j < padded_count; j += kPanel) {
    const Vec e = Scheme::exponential(load(scores + j) - now),
              f = Scheme::exponential(load(scores + j + kLanes) - now);
    Scheme::put(row, j, e);  // never before what is still to be read
    Scheme::put(row, j + kLanes, f);
    sums += e;
    more += f;
  }
  total = total * factor + sum_of(sums + more);
  best = now;
  return factor;
}

/// Scores beyond what a row may see become very negative (their exponentials 0).
TESSERA_INLINE void mask_row(float* scores, std::int64_t visible, std::int64_t padded_count) {
  for (std::int64_t j = visible < 0 ? 0 : visible; j < padded_count; ++j) scores[j] = -1e30f;
}

/// Zeros in place of weights that are dropped; the stream begins at the first.
template <class Number>
TESSERA_INLINE void drop_weights(Number* row, std::uint64_t stream, std::uint64_t least,
                                 std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j)
    row[j] = mixed(stream + static_cast<std::uint64_t>(j)) >> 11 < least ? Number{} : row[j];
}

template <class Scheme, bool kDrops>
void attention_block(const AttentionBlock& b) {
  typedef typename Scheme::Number Number;
  constexpr std::int64_t kDepth = Scheme::kDepth;
  constexpr std::int64_t kScoreStep =
      kKeyBlock * std::int64_t{sizeof(float)} / std::int64_t{sizeof(Number)};
  const std::int64_t padded = whole_panels(b.width), wide = whole_lanes<Scheme>(b.width);
  const auto *keys = static_cast<const Number*>(b.head.keys),
             *values = static_cast<const Number*>(b.head.values);
  Scratch<Scheme> s{};
  s.q = reinterpret_cast<Number*>(b.scratch);
  s.scores = b.scratch + kQueryBlock * wide;
  s.out = s.scores + kQueryBlock * kKeyBlock;
  s.best = s.out + kQueryBlock * padded;
  s.total = s.best + kQueryBlock;
  const std::int64_t rows =
      (b.rows + kRows - 1) / kRows * kRows;  // whole tiles; rows beyond b.rows are zero
  for (std::int64_t r = 0; r < rows; ++r) {
    Scheme::scale_row(r < b.rows ? b.q + r * b.ldq : nullptr, b.scale, b.width, s.q + r * wide);
    for (std::int64_t c = 0; c < padded; ++c) s.out[r * padded + c] = 0.0f;
    s.best[r] = -1e30f;
    s.total[r] = 0.0f;
  }
  const std::int64_t seen =
      b.causal && b.first + b.rows - 1 < b.keys ? b.first + b.rows - 1 : b.keys;
  for (std::int64_t begin = 0; begin < seen; begin += kKeyBlock) {
    const std::int64_t count = seen - begin < kKeyBlock ? seen - begin : kKeyBlock;
    // Keys of this block that row r sees, at most.
    const auto visible_to = [&](std::int64_t r) {
      return b.causal && b.first + r - begin < count ? b.first + r - begin : count;
    };
    for (std::int64_t r = 0; r < rows; r += kRows) {
      const std::int64_t visible = visible_to(r + kRows - 1);
      for (std::int64_t j = 0; j < visible; j += kPanel) {
        Scheme::template product<false>(s.q + r * wide, wide, keys + (begin + j) * wide,
                                        kPanel * kDepth, wide / kDepth,
                                        s.scores + r * kKeyBlock + j, kKeyBlock);
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t visible = visible_to(r),
                         whole = whole_panels(visible_to(r / kRows * kRows + kRows - 1));
      mask_row(s.scores + r * kKeyBlock, visible, whole);
      if (visible <=
          0) {  // nothing to see in this block; leaves maximum, sum and output as they are
        for (std::int64_t j = 0; j < whole; ++j) s.scores[r * kKeyBlock + j] = 0.0f;
        continue;
      }
      const float factor =
          softmax_row<Scheme>(s.scores + r * kKeyBlock, whole, s.best[r], s.total[r]);
      if (factor != 1.0f) {
        for (std::int64_t c = 0; c < padded; c += kLanes)
          store(s.out + r * padded + c, load(s.out + r * padded + c) * factor);
      }
      if constexpr (kDrops) {
        drop_weights(reinterpret_cast<Number*>(s.scores + r * kKeyBlock),
                     b.dropped.stream + static_cast<std::uint64_t>(r * b.keys + begin),
                     b.dropped.least, visible);
      }
    }
    for (std::int64_t r = 0; r < rows; r += kRows) {
      const std::int64_t visible = visible_to(r + kRows - 1);
      if (visible <= 0) continue;
      for (std::int64_t c = 0; c < padded; c += kPanel) {
        Scheme::template product<true>(reinterpret_cast<const Number*>(s.scores + r * kKeyBlock),
                                       kScoreStep, values + begin * padded + c * kDepth,
                                       padded * kDepth, (visible + kDepth - 1) / kDepth,
                                       s.out + r * padded + c, padded);
      }
    }
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    if (b.lse) b.lse[r * b.ld_lse] = s.best[r] + __builtin_logf(s.total[r]);
    const float inverse = (kDrops ? b.dropped.scale : 1.0f) / s.total[r];
    for (std::int64_t c = 0; c < b.width; ++c)
      b.out[r * b.ldo + c] = s.out[r * padded + c] * inverse;
  }
}

}  // namespace
}  // namespace tessera::kernels
