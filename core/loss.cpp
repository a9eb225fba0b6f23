#include "core/loss.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/kernels/product.h"
#include "core/kernels/vector.h"
#include "core/linear_in_place.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

constexpr std::int64_t kRows = 16;

/// What is to be found in rows of logits.
struct Wanted {
  std::span<const std::int32_t> targets;
  float smoothing;
  std::span<const float> weights;

  float weight(std::int64_t row) const {
    return weights.empty() ? 1 : weights[static_cast<std::size_t>(row)];
  }
  std::int32_t target(std::int64_t row) const { return targets[static_cast<std::size_t>(row)]; }
};

void check(const Wanted& wanted, std::int64_t rows, std::int64_t vocab) {
  const auto& [targets, smoothing, weights] = wanted;
  if (std::ssize(targets) != rows)
    throw ShapeError(concat(targets.size(), " targets for ", rows, " rows of logits"));
  if (!weights.empty() && weights.size() != targets.size())
    throw ShapeError(concat(weights.size(), " weights for ", targets.size(), " targets"));
  for (const std::int32_t t : targets) {
    if ((t < 0 || t >= vocab) && t != kIgnored)
      throw ArgumentError(concat("target ", t, " is outside the vocabulary of ", vocab, " tokens"));
  }
}

struct RowLoss {
  float loss;     // -log softmax(logits)[target], smoothed; 0 where it does not count
  float total;    // the logarithm of the sum of the exponentials
  float largest;  // logit
};
RowLoss loss_of_row(const float* logits, std::int64_t vocab, std::int32_t target, float smoothing) {
  float total = 0, sum = 0;
  const float largest = kernels::vector_kernels().training.log_sum_exp(logits, vocab, &total, &sum);
  if (target == kIgnored) return {0, total, largest};
  return {total - (1 - smoothing) * logits[target] - smoothing * sum / static_cast<float>(vocab),
          total, largest};
}

Tensor sum_of(Context& ctx, const Tensor& losses, const Wanted& wanted) {
  double total = 0;
  for (std::int64_t i = 0; i < losses.numel(); ++i)
    total += static_cast<double>(losses.data()[i]) * static_cast<double>(wanted.weight(i));
  Tensor loss = ctx.empty({1});
  loss.data()[0] = static_cast<float>(total);
  return loss;
}

}  // namespace

std::int64_t counted(std::span<const std::int32_t> targets) {
  return std::ranges::count_if(targets, [](std::int32_t t) { return t != kIgnored; });
}

void logits_gradient(const LogitsRow& r, const float* initial, float* d) {
  if (r.target == kIgnored) {
    if (!initial) std::fill_n(d, r.vocab, 0.0f);
    return;
  }
  kernels::vector_kernels().training.softmax_gradient(
      r.logits, r.vocab, r.total, r.factor, r.smoothing / static_cast<float>(r.vocab), initial, d);
  d[r.target] -= r.factor * (1 - r.smoothing);
}

Tensor cross_entropy(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                     float smoothing, std::span<const float> weights) {
  const std::int64_t rows = logits.dim(0), vocab = logits.dim(1);
  const Wanted wanted{targets, smoothing, weights};
  check(wanted, rows, vocab);
  const StageScope scope(ctx, "loss");
  Tensor totals = ctx.empty({rows});  // for the gradient
  Tensor losses = ctx.empty({rows});
  in_pieces(ctx, rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const RowLoss found =
          loss_of_row(logits.data() + i * logits.stride(0), vocab, wanted.target(i), smoothing);
      losses.data()[i] = found.loss;
      totals.data()[i] = found.total;
    }
  });
  const Tensor loss = sum_of(ctx, losses, wanted);
  if (ctx.tape) {
    Tensor factors;
    if (!weights.empty()) {
      factors = ctx.empty({rows});
      std::ranges::copy(weights, factors.data());
    }
    ctx.tape->record({.op = Op::cross_entropy,
                      .inputs = {logits, totals, factors},
                      .output = loss,
                      .number = smoothing,
                      .ids = {targets.begin(), targets.end()}});
  }
  return loss;
}

namespace {

/// The gradients of a loss with respect to rows and the matrix that makes logits of them; empty:
/// not wanted.
struct HeadGradients {
  Tensor weight;  // the matrix itself, [V, D]
  Tensor dx, dweight;

  /// Of rows [begin, end) of x.
  void add(Context& ctx, const Tensor& x, const Tensor& dlogits, std::int64_t begin,
           std::int64_t end) const {
    const auto view = [](const Tensor& t, bool turned = false) {
      return kernels::MatrixView{t.data(), t.stride(0), turned};
    };
    if (dx)
      kernels::product(ctx, view(dlogits), view(weight), weight.dim(0), false,
                       dx.slice(begin, end));
    if (dweight)
      kernels::product(ctx, view(dlogits, true), view(x.slice(begin, end)), end - begin, begin > 0,
                       dweight);
  }
};

/// The matrix of an output layer that is nothing else and is multiplied as it lies, [V, D]; else
/// empty.
Tensor plain_matrix(const Linear& head) {
  const InPlaceMatrix* matrix = head.in_place();
  if (!matrix || matrix->parts.size() != 1) return {};
  const InPlaceMatrix::Part& part = matrix->parts.front();
  return part.inputs_first || part.bias || part.lora ? Tensor() : part.weight;
}

std::int64_t rows_at_a_time(std::int64_t rows, std::int64_t vocab) {
  const std::int64_t most = std::max(kRows, kLogitsAtATime / vocab);
  const std::int64_t pieces = std::max<std::int64_t>(1, (rows + most - 1) / most);
  return (rows + pieces - 1) / pieces;
}

/// Losses of rows [begin, begin + logits.dim(0)); with `learns`, the logits become their gradient.
/// Returns how many of the targets are the likeliest.
std::int64_t take_rows(Context& ctx, const Wanted& wanted, std::int64_t begin, bool learns,
                       Tensor logits, Tensor losses) {
  const StageScope scope(ctx, "loss");
  const std::int64_t vocab = logits.dim(1);
  std::atomic<std::int64_t> right = 0;
  in_pieces(ctx, logits.dim(0), kRows, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      float* row = logits.data() + i * logits.stride(0);
      const std::int32_t target = wanted.target(begin + i);
      const RowLoss found = loss_of_row(row, vocab, target, wanted.smoothing);
      losses.data()[begin + i] = found.loss;
      if (target != kIgnored && found.largest <= row[target])
        right.fetch_add(1, std::memory_order_relaxed);
      if (learns) {
        logits_gradient(
            {row, vocab, target, wanted.smoothing, found.total, wanted.weight(begin + i)}, nullptr,
            row);
      }
    }
  });
  return right;
}

}  // namespace

TokenLoss cross_entropy(Context& ctx, const Linear& head, const Tensor& x,
                        std::span<const std::int32_t> targets, float smoothing,
                        std::span<const float> weights) {
  const std::int64_t rows = x.dim(0), vocab = head.out();
  const Wanted wanted{targets, smoothing, weights};
  check(wanted, rows, vocab);
  HeadGradients gradients{.weight = plain_matrix(head)};
  Tape* const tape = ctx.tape;
  Tensor losses = ctx.empty({rows});
  TokenLoss sum;
  if (tape && (!gradients.weight || rows == 0)) {  // what it records needs all logits
    const Tensor logits = head(ctx, x);
    sum.right = take_rows(ctx, wanted, 0, false, logits, losses);
    sum.loss = cross_entropy(ctx, logits, targets, smoothing, weights);
    return sum;
  }
  if (tape && tape->wants(x)) gradients.dx = ctx.empty(x.shape());
  if (tape && tape->wants(gradients.weight))
    gradients.dweight = ctx.empty(gradients.weight.shape());
  const bool learns = gradients.dx || gradients.dweight;
  const std::int64_t step = rows_at_a_time(rows, vocab);
  const TapeScope off(ctx, nullptr);
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t end = std::min(rows, begin + step);
    const Tensor logits = head(ctx, x.slice(begin, end));
    sum.right += take_rows(ctx, wanted, begin, learns, logits, losses);
    if (learns) gradients.add(ctx, x, logits, begin, end);
  }
  sum.loss = sum_of(ctx, losses, wanted);
  const auto known = [&](const Tensor& of, const Tensor& gradient) {
    if (gradient) tape->record({.op = Op::known, .inputs = {of, gradient}, .output = sum.loss});
  };
  known(x, gradients.dx);
  known(gradients.weight, gradients.dweight);
  return sum;
}

}  // namespace tessera
