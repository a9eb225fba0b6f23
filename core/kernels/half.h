#pragma once
#include <cstdint>

namespace tessera::kernels {

// Products of bf16 numbers with sums in f32: vdpbf16ps where the machine has it (it drops denormal
// numbers and rounds each of the two products' sums), else in f32, which is slower than f32 numbers
// would be. Weights lie in panels of `columns` columns: [k/2][columns][2].

struct HalfTile {
  std::int64_t m;          // rows
  const std::uint16_t* a;  // [m, k], row stride lda
  std::int64_t lda;
  const std::uint16_t* weight;  // a panel
  std::int64_t k;               // even
  float* sums;                  // [m, columns], row stride lds
  std::int64_t lds;
  bool adds = false;  // to what is in sums
};

struct HalfKernels {
  bool native;           // the machine multiplies bf16 numbers itself
  std::int64_t columns;  // of a panel
  /// x [k] -> to [padded], the nearest bf16 numbers (ties to even), zeros behind.
  void (*round_row)(const float* x, std::int64_t k, std::int64_t padded, std::uint16_t* to);
  /// Any number of rows times a panel.
  void (*tile)(const HalfTile& tile);
};

}  // namespace tessera::kernels
