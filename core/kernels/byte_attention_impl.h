// Attention of few queries over keys and values of 8 bits; see byte_attention.h.
#pragma once
#include "core/kernels/attention_few_impl.h"
#include "core/kernels/integer_impl.h"

namespace tessera::kernels {
namespace {

/// Where the parts of a head's block begin, in bytes.
struct ByteBlock {
  explicit ByteBlock(std::int64_t width)
      : padded((width + kDepth - 1) / kDepth * kDepth),
        scales(kByteKeys * padded),
        values(scales + 2 * kByteKeys * static_cast<std::int64_t>(sizeof(float))),
        bytes(values + kByteKeys * ((width + kPanel - 1) / kPanel * kPanel)) {}
  /// Of number c of row j.
  std::int64_t key_at(std::int64_t j, std::int64_t c) const {
    return ((j / kPanel * (padded / kDepth) + c / kDepth) * kPanel + j % kPanel) * kDepth +
           c % kDepth;
  }
  std::int64_t value_at(std::int64_t j, std::int64_t c) const {
    return values +
           ((c / kPanel * (kByteKeys / kDepth) + j / kDepth) * kPanel + c % kPanel) * kDepth +
           j % kDepth;
  }
  std::int64_t padded, scales, values, bytes;
};

TESSERA_INLINE float* scales_of(const std::uint8_t* block, const ByteBlock& b) {
  return reinterpret_cast<float*>(const_cast<std::uint8_t*>(block) + b.scales);
}

/// A byte as it lies in a block.
TESSERA_INLINE std::uint8_t stored(std::int32_t n) {
  return static_cast<std::uint8_t>(n + kWeightOffset);
}

/// Neighbouring numbers of a row lie kDepth by kDepth.
TESSERA_INLINE void write_key(const float* k, std::int64_t width, std::int64_t j,
                              const ByteBlock& b, std::uint8_t* block) {
  scales_of(block, b)[j] = quantize_numbers(
      k, width, width, 127.0f,
      [&](std::int64_t c, IntVec v) {
        const auto bytes = __builtin_convertvector(v + kWeightOffset, QuarterUnsignedVec);
        std::uint8_t* to = block + b.key_at(j, c);
        for (std::int64_t i = 0; i < kLanes; i += kDepth, to += kPanel * kDepth)
          __builtin_memcpy(to, reinterpret_cast<const char*>(&bytes) + i, kDepth);
      },
      [&](std::int64_t c, std::int32_t n) { block[b.key_at(j, c)] = stored(n); });
}

TESSERA_INLINE void write_value(const float* v, std::int64_t width, std::int64_t j,
                                const ByteBlock& b, std::uint8_t* block) {
  const auto put = [&](std::int64_t c, std::int32_t n) { block[b.value_at(j, c)] = stored(n); };
  scales_of(block, b)[kByteKeys + j] = quantize_numbers(
      v, width, width, 127.0f,
      [&](std::int64_t c, IntVec n) {
        for (std::int64_t i = 0; i < kLanes; ++i) put(c + i, n[i]);
      },
      put);
}

/// kDepth rows of values, which lie side by side, from row j on (a multiple of kDepth). A row with
/// a number that is not finite has a scale that is none, whatever its bytes.
TESSERA_INLINE void write_values(const float* v, std::int64_t ldv, std::int64_t width,
                                 std::int64_t j, const ByteBlock& b, std::uint8_t* block) {
  float inverse[kDepth];
  for (std::int64_t i = 0; i < kDepth; ++i) {
    const RowSize size = size_of_row(v + i * ldv, width);
    inverse[i] = size.most != 0.0f ? 127.0f / size.most : 0.0f;
    scales_of(block, b)[kByteKeys + j + i] = size.check == 0.0f ? size.most / 127.0f : size.check;
  }
  const std::int64_t whole = width / kLanes * kLanes;
  const Vec round = splat(kIntegersFrom);
  for (std::int64_t c = 0; c < whole; c += kLanes) {
    IntVec words{};
    for (std::int64_t i = 0; i < kDepth; ++i) {
      const IntVec n = (IntVec)(load(v + i * ldv + c) * inverse[i] + round) - (IntVec)round;
      words |= ((n + kWeightOffset) & 255) << (8 * static_cast<std::int32_t>(i));
    }
    std::uint8_t* to = block + b.value_at(j, c);
    if (kDepth == 4) {
      __builtin_memcpy(to, &words, sizeof words);
    } else {
      const auto pairs = __builtin_convertvector(words, HalfShortVec);
      __builtin_memcpy(to, &pairs, sizeof pairs);
    }
  }
  for (std::int64_t i = 0; i < kDepth; ++i) {
    for (std::int64_t c = whole; c < width; ++c) {
      const float x = v[i * ldv + c] * inverse[i];
      block[b.value_at(j + i, c)] =
          stored(x == x ? static_cast<std::int32_t>(__builtin_rintf(x)) : 0);
    }
  }
}

void write_byte_rows(const float* k, std::int64_t ldk, const float* v, std::int64_t ldv,
                     std::int64_t width, std::int64_t first, std::int64_t count,
                     std::uint8_t* block) {
  const ByteBlock b(width);
  for (std::int64_t i = 0; i < count; ++i) write_key(k + i * ldk, width, first + i, b, block);
  for (std::int64_t i = 0; i < count;) {
    if ((first + i) % kDepth == 0 && i + kDepth <= count) {
      write_values(v + i * ldv, ldv, width, first + i, b, block);
      i += kDepth;
    } else {
      write_value(v + i * ldv, width, first + i, b, block);
      ++i;
    }
  }
}

void read_byte_row(const std::uint8_t* block, std::int64_t width, std::int64_t j, float* k,
                   float* v) {
  const ByteBlock b(width);
  const float* scales = scales_of(block, b) + j;
  const auto number = [&](std::int64_t at) {
    return static_cast<float>(kWeightOffset ? block[at] - kWeightOffset
                                            : static_cast<std::int8_t>(block[at]));
  };
  for (std::int64_t c = 0; c < width; ++c) {
    k[c] = scales[0] * number(b.key_at(j, c));
    v[c] = scales[kByteKeys] * number(b.value_at(j, c));
  }
}

/// Rows of floats that are multiplied together.
constexpr std::int64_t kByteRows = kFewIntegerRows / kRowParts;

/// Rows of floats as integers.
struct RoundedRows {
  RowNumber* numbers;   // [kFewIntegerRows, padded]
  std::int64_t padded;  // a multiple of kDepth
  float units[kFewIntegerRows];
  std::int32_t sums[kFewIntegerRows];

  TESSERA_INLINE void set(std::int64_t row, const float* x, std::int64_t k) {
    const std::int64_t r = row * kRowParts;
    RowNumber* to = numbers + r * padded;
    if (kRowParts == 2) {
      units[r + 1] = quantize_fine(x, k, padded, 127.0f, to);
      units[r] = units[r + 1] * (1 << kLowBits);
    } else {
      constexpr std::int64_t kMostPrecise = 8192;  // whose sums stay within 32 bits
      units[r] = quantize_row(x, k, padded, padded <= kMostPrecise ? 2047.0f : 255.0f, to);
    }
    for (std::int64_t i = r; kWeightOffset && i < r + kRowParts; ++i)
      sum_groups(numbers + i * padded, padded, padded, sums + i);
  }
  /// The products of the first `count` rows with a panel, times the columns' scales ->
  /// to[kByteRows][kPanel].
  TESSERA_INLINE void times(std::int64_t count, const std::uint8_t* panel, const float* scales,
                            float* to) {
    few_rows8({numbers, padded, units, sums}, count, panel, scales, padded, to);
  }
};

std::int64_t bytes_of_block(std::int64_t width) { return ByteBlock(width).bytes; }

std::int64_t byte_scratch(std::int64_t width) {
  const std::int64_t padded = ByteBlock(width).padded;
  const std::int64_t most = padded > kByteKeys ? padded : kByteKeys;
  const auto size = static_cast<std::int64_t>(sizeof(RowNumber));
  return (kFewIntegerRows * most * size + 3) / 4;
}

/// Up to kByteRows rows of queries that see one head of keys: rows r of scores, best, total, out.
TESSERA_INLINE void byte_rows(const AttentionPart& a, const ByteBlock& b, const std::uint8_t* block,
                              const float* const* q, const std::int64_t* rows, std::int64_t count) {
  float sums[kByteRows * kPanel];
  const float* scales = scales_of(block, b);
  RoundedRows x{reinterpret_cast<RowNumber*>(a.scratch), b.padded, {}, {}};
  for (std::int64_t r = 0; r < count; ++r) x.set(r, q[r], a.width);
  for (std::int64_t j = 0; j < a.keys; j += kPanel) {
    x.times(count, block + j * b.padded, scales + j, sums);
    const std::int64_t n = j + kPanel <= a.keys ? kPanel : a.keys - j;
    for (std::int64_t r = 0; r < count; ++r) {
      float* to = a.scores + rows[r] * a.keys + j;
      for (std::int64_t i = 0; i < n; ++i) to[i] = sums[r * kPanel + i] * a.scale;
    }
  }
  x.padded = (a.keys + kDepth - 1) / kDepth * kDepth;
  for (std::int64_t r = 0; r < count; ++r) {
    float* own = a.scores + rows[r] * a.keys;
    exponentials(own, a.keys, a.best[rows[r]], a.total[rows[r]]);
    for (std::int64_t j = 0; j < a.keys; ++j) own[j] *= scales[kByteKeys + j];
    x.set(r, own, a.keys);
  }
  float ones[kPanel];
  for (float& one : ones) one = 1.0f;
  for (std::int64_t c = 0; c < a.width; c += kPanel) {
    x.times(count, block + b.values + c * kByteKeys, ones, sums);
    const std::int64_t n = c + kPanel <= a.width ? kPanel : a.width - c;
    for (std::int64_t r = 0; r < count; ++r) {
      float* to = a.out + rows[r] * a.width + c;
      for (std::int64_t i = 0; i < n; ++i) to[i] = sums[r * kPanel + i];
    }
  }
}

/// Each head's block is read from one end to the other.
TESSERA_INLINE void attention_part_bytes(const AttentionPart& a) {
  const ByteBlock b(a.width);
  const std::int64_t group = a.heads / a.kv_heads, all = a.queries * group;
  for (std::int64_t h = 0; h < a.kv_heads; ++h) {
    for (std::int64_t first = 0; first < all; first += kByteRows) {
      const std::int64_t count = all - first < kByteRows ? all - first : kByteRows;
      const float* q[kByteRows];
      std::int64_t rows[kByteRows];
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t i = (first + r) / group, head = h * group + (first + r) % group;
        q[r] = a.q + i * a.ldq + head * a.width;
        rows[r] = i * a.heads + head;
      }
      byte_rows(a, b, a.bytes + h * b.bytes, q, rows, count);
    }
  }
}

void attention_part(const AttentionPart& a) {
  if (a.bytes) return attention_part_bytes(a);
  attention_part_rows(a);
}

}  // namespace
}  // namespace tessera::kernels
