#pragma once
#include <cstdint>

#include "core/activation.h"

namespace tessera::kernels {

// Products of quantised numbers. Weights have 8 bits (one scale a column) or 4 (a scale and a zero
// point for every kGroup numbers of a column); activations have one scale a row, found from the
// row. All sums are exact in 32 bits and depend on nothing but the numbers. There are two schemes;
// the instruction set decides:
//
// - `depth` 2: activations have 12 bits and a sign. Pairs of 16-bit numbers are multiplied and
//   added (pmaddwd, which never saturates, as products in pairs of bytes would without VNNI).
// - `depth` 4: activations have 7 bits and a sign. Fours of bytes are multiplied and added
//   (vpdpbusd). That takes one side without a sign: weights have 128 added, and what this adds to
//   a sum, 128 times the sum of the row's numbers, is taken off again. Few rows, which wait for
//   memory and not for arithmetic, have 14 bits and a sign: as two rows, of high and of low parts.
//
// Weights lie in panels of `columns` columns. 8 bits: [k/depth][columns][depth]. 4 bits: eight
// numbers of a column in a 32-bit word, [k/8][columns]; number i is at bit (32/depth) * (i % depth)
// + 4 * (i / depth).

/// Numbers of a column that share a scale, with 4 bits.
constexpr std::int64_t kGroup = 32;
/// Bits of the low parts of quantize_fine().
constexpr int kLowBits = 7;
/// Most rows of few_rows8 and few_rows4; with depth 4 as many parts.
constexpr std::int64_t kFewIntegerRows = 6;

/// Rows of quantised activations: [rows, k], 16 bits (depth 2) or 8 (depth 4), lda numbers from one
/// to the next, and what one unit is worth in each row.
struct IntegerRows {
  const void* a;
  std::int64_t lda;
  const float* scales;  // [rows]
  /// [rows, groups] sums of the integers of each group. With 8 bits all k are one group, and depth
  /// 2 needs none.
  const std::int32_t* group_sums;
};

/// Most rows that are rounded at a time.
constexpr std::int64_t kRowsRounded = 4;
struct RoundedRows {
  std::int64_t m;  // at most kRowsRounded
  const float* x;  // [m, k], row stride ldx
  std::int64_t ldx, k, padded;
  float limit;
  void* q;  // [m, padded], row stride ldq
  std::int64_t ldq;
  float* units;                   // [m]
  const float* weight = nullptr;  // of LayerNorm [k], or null
  const float* bias = nullptr;    // [k]
  float eps = 0;
  float* normal = nullptr;  // [m, k] for its results
};

struct IntegerTile {
  std::int64_t m;  // rows
  IntegerRows rows;
  const void* weight;   // as widen8() or widen4() gives it
  std::int64_t k;       // a multiple of depth
  std::int64_t group;   // numbers of a column that share a scale; k where there is one scale
  const float* scales;  // [k/group][columns]
  float* sums;          // [m, columns], row stride lds
  std::int64_t lds;
  // What memory is asked for meanwhile: where results go in the end [m, columns], and the bytes
  // that the next panel's weights are made of (at least k * columns), or null.
  const float* results;
  std::int64_t ld_results;
  const std::uint8_t* next;
  // Where one scale serves all k, what sums become on their way out: act(sums + bias) + residual.
  // gelu and gelu_tanh are those of Finish::coarse, others are not known here.
  Activation activation = Activation::none;
  const float* bias = nullptr;      // [columns] or null
  const float* residual = nullptr;  // [m, columns], row stride ld_residual, or null
  std::int64_t ld_residual = 0;
};

/// 4-bit panels: (nibble - zero) * scale.
struct NibblePanel {
  const std::uint32_t* weight;
  const std::uint16_t* scales;  // bf16, [k/kGroup][columns]
  const std::uint8_t* zeros;    // [k/kGroup][columns]
};

/// What a group of weights of 4 bits shares: each is (q - zero) * scale.
struct Nibbles {
  float scale;
  std::uint8_t zero;
};

struct IntegerKernels {
  std::int64_t columns;    // of a panel
  std::int64_t tile_rows;  // rows that one tile computes at a time
  std::int64_t depth;      // 2 or 4, see above
  /// x [m, k], after LayerNorm where there is one -> q [m, padded] within +-limit, and what one
  /// unit of each row is worth: 0 for a row of zeros, NaN where a number is not finite.
  void (*quantize_rows)(const RoundedRows& rows);
  /// A row x [k] with 14 bits and a sign: x is q[0..padded) * 2^kLowBits + q[padded..2*padded), in
  /// units of what is returned; limit as for the high parts. Null with depth 2.
  float (*quantize_fine)(const float* x, std::int64_t k, std::int64_t padded, float limit, void* q);
  /// sums [k/group] of the integers of each group.
  void (*sum_groups)(const void* q, std::int64_t k, std::int64_t group, std::int32_t* sums);
  /// A panel of 8-bit weights, k rows -> 16 bits, [k/2][columns][2]. Null with depth 4, where tiles
  /// take the panel as it lies.
  void (*widen8)(const std::uint8_t* panel, std::int64_t k, void* to);
  /// A panel of 4-bit weights less their zero points, k rows -> [k/depth][columns][depth] of 16
  /// bits (depth 2) or 8, and its scales as floats.
  void (*widen4)(const NibblePanel& panel, std::int64_t k, void* to, float* scales);
  /// Rows times a widened panel.
  void (*tile)(const IntegerTile& tile);
  /// m rows times a panel as it lies -> sums [m, columns]. With depth 4 each row is two, as
  /// quantize_fine() makes them, with scales and sums of groups of their own.
  void (*few_rows8)(const IntegerRows& rows, std::int64_t m, const std::uint8_t* panel,
                    const float* scales, std::int64_t k, float* sums);
  void (*few_rows4)(const IntegerRows& rows, std::int64_t m, const NibblePanel& panel,
                    std::int64_t k, float* sums);
  /// A group of kGroup finite numbers -> 0..15; the scale is exact in bf16. Least squared error,
  /// weighted by |x| + the group's root mean square.
  Nibbles (*quantize4)(const float* x, std::uint8_t* q);
};

}  // namespace tessera::kernels
