#pragma once
#include <cstdint>

namespace tessera::kernels {

// Products of quantised numbers. Weights have 8 bits (one scale a column) or 4 (a scale and a zero
// point for every kGroup numbers of a column), activations 12 bits and a sign (one scale a row,
// found from the row). Pairs of 16-bit numbers are multiplied and added in 32 bits (pmaddwd), which
// is exact: nothing saturates, every instruction set gives the same bits, and the sums depend on
// nothing but the numbers.
//
// Weights lie in panels of `columns` columns. 8 bits: [k/2][columns][2]. 4 bits: eight numbers of a
// column in two 16-bit words, [k/8][columns][2]; bits 4i..4i+3 of word p belong to row 2i + p.

/// Numbers of a column that share a scale, with 4 bits.
constexpr std::int64_t kGroup = 32;
/// Most rows of few_rows8 and few_rows4.
constexpr std::int64_t kFewIntegerRows = 6;

/// Rows of quantised activations: [rows, k], row stride lda, and what one unit is worth in each
/// row.
struct IntegerRows {
  const std::int16_t* a;
  std::int64_t lda;
  const float* scales;      // [rows]
  const float* group_sums;  // [rows, k/kGroup] sums of the integers of each group; 4 bits only
};

struct IntegerTile {
  std::int64_t m;  // rows
  IntegerRows rows;
  const std::int16_t* weight;  // widened: [k/2][columns][2]
  std::int64_t k;              // even
  std::int64_t group;          // numbers of a column that share a scale; k where there is one scale
  const float* scales;         // [k/group][columns]
  float* sums;                 // [m, columns]
};

/// 4-bit panels: (nibble - zero) * scale.
struct NibblePanel {
  const std::uint16_t* weight;
  const std::uint16_t* scales;  // bf16, [k/kGroup][columns]
  const std::uint8_t* zeros;    // [k/kGroup][columns]
};

struct IntegerKernels {
  std::int64_t columns;    // of a panel
  std::int64_t tile_rows;  // rows that one tile computes at a time
  /// x [k] -> q [padded] within +-limit; returns what one unit is worth: 0 for a row of zeros, NaN
  /// where a number is not finite.
  float (*quantize_row)(const float* x, std::int64_t k, std::int64_t padded, float limit,
                        std::int16_t* q);
  /// A panel of 8-bit weights, k rows -> [k/2][columns][2].
  void (*widen8)(const std::int8_t* panel, std::int64_t k, std::int16_t* to);
  /// A panel of 4-bit weights less their zero points, k rows, and its scales as floats.
  void (*widen4)(const NibblePanel& panel, std::int64_t k, std::int16_t* to, float* scales);
  /// Rows times a widened panel.
  void (*tile)(const IntegerTile& tile);
  /// Up to kFewIntegerRows rows times a panel as it lies -> sums [m, columns].
  void (*few_rows8)(const IntegerRows& rows, std::int64_t m, const std::int8_t* panel,
                    const float* scales, std::int64_t k, float* sums);
  void (*few_rows4)(const IntegerRows& rows, std::int64_t m, const NibblePanel& panel,
                    std::int64_t k, float* sums);
};

}  // namespace tessera::kernels
