#include "core/gptq.h"

#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace tessera {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;

std::vector<double> diagonal_of(const Tensor& moments) {
  if (moments.rank() != 2 || moments.dim(0) != moments.dim(1) || moments.numel() == 0)
    throw ShapeError(concat("sums of inputs of shape ", moments.shape().str(), ": not square"));
  const std::int64_t n = moments.dim(0);
  std::vector<double> diagonal(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = moments.data()[i * n + i];
    if (!(x >= 0) || std::isinf(x))
      throw FormatError(concat("the squares of input ", i, " add up to ", x,
                               "; expected finite inputs of a size that f32 can square"));
    diagonal[static_cast<std::size_t>(i)] = static_cast<double>(x);
  }
  return diagonal;
}

/// Groups by the sum of their inputs' squares, and so the columns of each; largest first.
std::vector<std::int64_t> order_of(const std::vector<double>& squares, std::int64_t group) {
  const auto n = static_cast<std::int64_t>(squares.size());
  const auto larger = [](const std::vector<double>& sizes) {
    return [&sizes](std::int64_t a, std::int64_t b) {
      return sizes[static_cast<std::size_t>(a)] > sizes[static_cast<std::size_t>(b)];
    };
  };
  std::vector<double> sums(static_cast<std::size_t>(n / group));
  for (std::int64_t i = 0; i < n; ++i)
    sums[static_cast<std::size_t>(i / group)] += squares[static_cast<std::size_t>(i)];
  std::vector<std::int64_t> groups(sums.size()), order;
  std::iota(groups.begin(), groups.end(), 0);
  std::ranges::stable_sort(groups, larger(sums));
  for (const std::int64_t g : groups) {
    for (std::int64_t i = 0; i < group; ++i) order.push_back(g * group + i);
    std::ranges::stable_sort(order.end() - group, order.end(), larger(squares));
  }
  return order;
}

/// The Cholesky factor L of the moments, damped, with rows and columns in `order` from last to
/// first: L turned around is upper triangular. Damped more where rounding made them indefinite.
Matrix factor(const Tensor& moments, const std::vector<std::int64_t>& order, double damping) {
  const auto n = static_cast<Eigen::Index>(order.size());
  const auto place = [&](Eigen::Index i) { return order[static_cast<std::size_t>(n - 1 - i)]; };
  for (int tries = 0; tries < 6; ++tries, damping *= 10) {
    Matrix m(n, n);
    for (Eigen::Index j = 0; j < n; ++j) {
      const float* column = moments.data() + place(j) * n;
      for (Eigen::Index i = j; i < n; ++i) m(i, j) = static_cast<double>(column[place(i)]);
      m(j, j) += damping;
    }
    const Eigen::LLT<Eigen::Ref<Matrix>> in_place(m);
    if (in_place.info() == Eigen::Success) return m;
  }
  throw FormatError("sums of inputs are not those of x^T x of finite inputs x");
}

}  // namespace

Gptq::Gptq(const Tensor& moments, std::int64_t group, bool ordered) {
  const std::vector<double> squares = diagonal_of(moments);
  const auto n = static_cast<std::int64_t>(squares.size());
  if (group == 0) group = n;
  if (n % group != 0) throw ShapeError(concat("groups of ", group, " columns do not divide ", n));
  if (ordered) {
    order_ = order_of(squares, group);
  } else {
    order_.resize(squares.size());
    std::iota(order_.begin(), order_.end(), 0);
  }
  const double mean = std::accumulate(squares.begin(), squares.end(), 0.0) / static_cast<double>(n);
  const Matrix l = factor(moments, order_, mean > 0 ? kDamping * mean : 1);
  feedback_ = Tensor::zeros({n, n});
  for (std::int64_t i = 0; i < n; ++i) {
    const double whole = l(n - 1 - i, n - 1 - i);
    for (std::int64_t k = 0; k < i; ++k)
      feedback_.data()[i * n + k] = static_cast<float>(l(n - 1 - k, n - 1 - i) / whole);
  }
}

}  // namespace tessera
