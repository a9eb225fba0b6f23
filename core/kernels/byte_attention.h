#pragma once
#include <cstdint>

#include "core/kernels/integer.h"

namespace tessera::kernels {

// Keys and values in 8 bits, a scale for each row and head, in blocks of kByteKeys rows: for each
// head of keys a block of its own, in which they lie as the weights of integer products do
// (integer.h; `columns` and `depth` are those of IntegerKernels). So scores are rows of queries
// times panels of keys, and results are rows of weights times panels of values:
//
//   keys    [kByteKeys/columns][padded width/depth][columns][depth]
//   scales  of keys [kByteKeys], of values [kByteKeys], f32
//   values  [padded width/columns][kByteKeys/depth][columns][depth]

/// Rows of a block.
constexpr std::int64_t kByteKeys = 256;

struct ByteAttentionKernels {
  /// Bytes of a head's block.
  std::int64_t (*bytes)(std::int64_t width);
  /// Rounds rows of k and v [count, width] to rows [first, first + count) of a head's block.
  void (*write)(const float* k, std::int64_t ldk, const float* v, std::int64_t ldv,
                std::int64_t width, std::int64_t first, std::int64_t count, std::uint8_t* block);
  /// Row j of a head's block -> k and v [width].
  void (*read)(const std::uint8_t* block, std::int64_t width, std::int64_t j, float* k, float* v);
  /// Floats of scratch memory that attention_part() needs for such a block.
  std::int64_t (*scratch)(std::int64_t width);
};

}  // namespace tessera::kernels
