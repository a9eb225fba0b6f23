#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// How the columns of a matrix are rounded one after the other so that later ones make up for what
/// earlier ones lost (GPTQ, Frantar et al. 2022), as the layer's inputs X have it: the least of
/// |X (W - Q)^T|^2 that rounding column by column finds. Column c of a row is rounded as
///
///     w[c] + sum over columns k before c of (w[k] - q[k]) * M[k, c]
///
/// where X^T X = M D M^T, M upper triangular with ones on the diagonal: the same numbers as GPTQ's
/// updates by the Cholesky factor of the inverse (Chee et al. 2023, QuIP, theorem 6), and nothing
/// is inverted.
class Gptq {
 public:
  /// Added to the diagonal of X^T X, as a share of its mean.
  static constexpr double kDamping = 0.01;

  /// From X^T X [in, in]. Columns in groups of `group`, which divides them (0: all are one): groups
  /// of large inputs come first, and in a group columns of large inputs; without `ordered`, as they
  /// lie. Inputs that are zero always change nothing for the others. Throws FormatError for sums
  /// that are not finite.
  explicit Gptq(const Tensor& moments, std::int64_t group, bool ordered = true);

  std::int64_t columns() const { return static_cast<std::int64_t>(order_.size()); }
  /// The column that is rounded as the i-th.
  std::span<const std::int64_t> order() const { return order_; }
  /// [in, in] f32: row i holds M[k, i] for k < i, both in that order; zeros from there on.
  const Tensor& feedback() const { return feedback_; }

 private:
  std::vector<std::int64_t> order_;
  Tensor feedback_;
};

}  // namespace tessera
