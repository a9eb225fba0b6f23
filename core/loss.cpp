#include "core/loss.h"

#include <algorithm>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

constexpr std::int64_t kRows = 16;

}  // namespace

std::int64_t counted(std::span<const std::int32_t> targets) {
  return std::ranges::count_if(targets, [](std::int32_t t) { return t != kIgnored; });
}

Tensor cross_entropy(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                     float smoothing, std::span<const float> weights) {
  const std::int64_t rows = logits.dim(0), vocab = logits.dim(1);
  if (static_cast<std::int64_t>(targets.size()) != rows)
    throw ShapeError(concat(targets.size(), " targets for logits ", logits.shape().str()));
  if (!weights.empty() && weights.size() != targets.size())
    throw ShapeError(concat(weights.size(), " weights for ", targets.size(), " targets"));
  for (const std::int32_t t : targets) {
    if ((t < 0 || t >= vocab) && t != kIgnored)
      throw ArgumentError(concat("target ", t, " is outside the vocabulary of ", vocab, " tokens"));
  }
  const StageScope scope(ctx, "loss");
  Tensor totals = ctx.empty({rows});  // log of the sum of exponentials, for the gradient
  Tensor losses = ctx.empty({rows});
  in_pieces(ctx, rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* row = logits.data() + i * logits.stride(0);
      float sum = 0;
      kernels::vector_kernels().training.log_sum_exp(row, vocab, &totals.data()[i], &sum);
      const std::int32_t target = targets[static_cast<std::size_t>(i)];
      losses.data()[i] = target == kIgnored ? 0
                                            : totals.data()[i] - (1 - smoothing) * row[target] -
                                                  smoothing * sum / static_cast<float>(vocab);
    }
  });
  double total = 0;
  Tensor factors;
  if (!weights.empty()) {
    factors = ctx.empty({rows});
    std::ranges::copy(weights, factors.data());
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    total += static_cast<double>(losses.data()[i]) *
             (factors ? static_cast<double>(factors.data()[i]) : 1);
  }
  Tensor loss = ctx.empty({1});
  loss.data()[0] = static_cast<float>(total);
  if (ctx.tape) {
    ctx.tape->record({.op = Op::cross_entropy,
                      .inputs = {logits, totals, factors},
                      .output = loss,
                      .number = smoothing,
                      .ids = {targets.begin(), targets.end()}});
  }
  return loss;
}

}  // namespace tessera
