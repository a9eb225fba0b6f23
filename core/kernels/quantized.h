#pragma once
#include <cstdint>

#include "core/kernels/integer.h"
#include "core/kernels/matmul.h"
#include "core/kernels/stored_matrix.h"

namespace tessera::kernels {

/// Throws FormatError, naming the matrix, for a number of a row that no integer stands for.
void check_finite(const std::string& name, std::int64_t row, const float* x, std::int64_t n);

/// A row of numbers -> 8 bits, symmetric; returns the scale (0 for a row of zeros).
float quantize8(const float* x, std::int64_t k, std::int8_t* q);
/// A group of kGroup numbers -> 0..15, as IntegerKernels::quantize4.
Nibbles quantize4(const float* x, std::uint8_t* q);

/// A weight matrix [n, k] of bf16 numbers (half.h) or of 8 or 4 bits (integer.h) in panels, packed
/// once.
class QuantizedMatrix {
 public:
  QuantizedMatrix() = default;
  /// `bits`: 16 (bf16), 8 or 4. Numbers that are stored so (with 4: in groups of kGroup) are taken
  /// as they are; others are rounded.
  static QuantizedMatrix pack(const StackedMatrix& source, int bits);

  int bits() const { return bits_; }
  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }
  std::int64_t bytes() const;  ///< that one product reads

 private:
  friend class PanelProduct;
  std::int64_t columns() const;    // of a panel
  std::int64_t scales_at() const;  // 4 bits: byte of data_ where the scales begin
  std::int64_t zeros_at() const;
  void pack16(const StackedMatrix& source);
  void pack8(const StackedMatrix& source);
  void pack4(const StackedMatrix& source);

  int bits_ = 8;
  std::int64_t n_ = 0, k_ = 0, padded_k_ = 0;
  /// Panels one after the other. 4 bits: then the scales, bf16 [panels, groups, columns], and the
  /// zero points, u8 of the same shape; in one piece, so that all of it lies on large pages.
  Tensor data_;
  Tensor scales_;  // 8 bits: f32 [panels, columns]
};

/// y = act(x W^T + bias) + residual, with x rounded as well.
void matmul(Context& ctx, const QuantizedMatrix& weight, const MatmulArguments& arguments);

}  // namespace tessera::kernels
