#pragma once
#include <cstdint>
#include <memory>

#include "core/activation.h"
#include "core/context.h"
#include "core/kernels/stored_matrix.h"
#include "core/tensor.h"

namespace tessera::kernels {

/// A weight matrix [n, k] that is multiplied in f32. Weights stored as bf16 stay so and are widened
/// as they are multiplied, which loses nothing: rows as given, without a copy where they are one
/// matrix. Others lie as oneDNN multiplies them fastest on this machine, packed once: panels of 64
/// columns ([n/64][k][64], k and n padded with zeros) where it has blocked kernels, else rows.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  static PackedMatrix pack(const StackedMatrix& source);

  std::int64_t n() const { return n_; }
  std::int64_t k() const { return k_; }
  bool blocked() const { return blocked_; }
  bool half() const { return data_.dtype() == DType::bf16; }
  /// Whether the numbers are where they were when it was packed.
  bool shared() const { return shared_; }
  std::int64_t bytes() const { return n_ * k_ * (half() ? 2 : 4); }  ///< that one product reads
  /// First number of column j; j is a multiple of 64 when blocked.
  const float* column(std::int64_t j) const {
    return data_.data() + j * (blocked_ ? padded_k() : k_);
  }
  const std::uint16_t* half_column(std::int64_t j) const {
    return data_.data<std::uint16_t>() + j * k_;
  }
  static constexpr std::int64_t kPanel = 64;

 private:
  std::int64_t padded_k() const { return (k_ + 15) / 16 * 16; }
  Tensor data_;
  std::int64_t n_ = 0, k_ = 0;
  bool blocked_ = false, shared_ = false;
};

/// LayerNorm of rows: weight and bias [k].
struct RowNorm {
  const float *weight, *bias;
  float eps;
};

struct MatmulArguments {
  const float* x = nullptr;  // [m, k], row stride ldx
  std::int64_t ldx = 0, m = 0;
  const RowNorm* norm = nullptr;  // of x, before it is multiplied; quantised matrices only
  const float* bias = nullptr;    // [n] or null
  Activation activation = Activation::none;  // one that fuses()
  const float* residual = nullptr;           // [m, n], row stride ldr, or null
  std::int64_t ldr = 0;
  float* y = nullptr;  // [m, n], row stride ldy
  std::int64_t ldy = 0;
  bool coarse = false;  // see Finish
};

/// Whether matmul applies this activation itself.
bool fuses(Activation activation);

/// Bias, activation and residual of rows [i, i + m) and columns [j, j + n); sums [m, n] with row
/// stride lds.
void finish(const MatmulArguments& arguments, std::int64_t i, std::int64_t m, std::int64_t j,
            std::int64_t n, const float* sums, std::int64_t lds);

/// Panels of `bytes` each that one task of a product of few rows reads: as long a stretch of memory
/// as leaves enough tasks, for each thread's reading ahead ends where another's begins.
std::int64_t panels_per_task(std::int64_t panels, std::int64_t bytes);

/// y = act(x W^T + bias) + residual. Many rows: oneDNN where it has blocked kernels, in tiles of
/// rows, each one single-threaded call; else product(). Few rows: our own kernels, in groups of
/// columns. The result does not depend on the number of threads: oneDNN's tiles, which do, give the
/// same sums however many rows they have (tests compare them).
void matmul(Context& ctx, const PackedMatrix& weight, const MatmulArguments& arguments);

/// oneDNN primitives by shape; one for each Context.
class MatmulCache;
std::shared_ptr<MatmulCache> make_matmul_cache();

}  // namespace tessera::kernels
