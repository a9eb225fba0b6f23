#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/layers.h"
#include "core/loss.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

constexpr std::int64_t kRows = 16;

/// Rows x and y [N, D], already scaled, whose products are the logits.
struct PairedRows {
  Tensor x, y;
};

/// Each image chooses its text, and each text its image.
Tensor choosing_loss(Context& ctx, const PairedRows& rows) {
  const auto& [x, y] = rows;
  std::vector<std::int32_t> own(static_cast<std::size_t>(x.dim(0)));
  std::iota(own.begin(), own.end(), 0);
  const auto side = [&](const Tensor& from, const Tensor& to) {
    return cross_entropy(ctx, Linear(to, {}, Precision::in_place)(ctx, from), own);
  };
  return scaled(ctx, add(ctx, side(x, y), side(y, x)), 0.5f);
}

/// -log sigmoid of what is right in each logit [N, N]: that the pair of the diagonal belongs
/// together, and the others don't.
Tensor judging_loss(Context& ctx, const Tensor& logits) {
  const StageScope scope(ctx, "loss");
  const std::int64_t n = logits.dim(0);
  const bool learns = ctx.tape && ctx.tape->wants(logits);
  Tensor gradient = learns ? Tensor::empty({n, n}) : Tensor();
  std::vector<double> sums(static_cast<std::size_t>(n));
  in_pieces(ctx, n, kRows, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* row = logits.data() + i * logits.stride(0);
      for (std::int64_t j = 0; j < n; ++j) {
        // log(1 + exp(z)) and its slope sigmoid(z), with the sign turned where the pair is right
        const float z = i == j ? -row[j] : row[j], small = std::exp(-std::abs(z));
        sums[static_cast<std::size_t>(i)] +=
            static_cast<double>(std::max(z, 0.0f) + std::log1p(small));
        if (!learns) continue;
        const float slope = (z > 0 ? 1 : small) / (1 + small);
        gradient.data()[i * n + j] = i == j ? -slope : slope;
      }
    }
  });
  Tensor loss = ctx.empty({1});
  loss.data()[0] = static_cast<float>(std::accumulate(sums.begin(), sums.end(), 0.0));
  if (learns) ctx.tape->record({.op = Op::known, .inputs = {logits, gradient}, .output = loss});
  return loss;
}

/// exp(x), x [1].
Tensor exponential(Context& ctx, const Tensor& x) {
  Tensor y = ctx.empty({1});
  y.data()[0] = std::exp(x.to_f32().data()[0]);
  if (ctx.tape && ctx.tape->wants(x))
    ctx.tape->record({.op = Op::known, .inputs = {x, y.clone()}, .output = y});
  return y;
}

void check_number(const Tensor& x, const char* what) {
  if (x.numel() != 1)
    throw ShapeError(concat("a ", what, " of logits ", x.shape().str(), "; expected [1]"));
}

/// x [1] n times, as a vector.
Tensor repeated(Context& ctx, const Tensor& x, std::int64_t n) {
  const std::vector<std::int32_t> first(static_cast<std::size_t>(n), 0);
  return gather_rows(ctx, x.reshape({1, 1}), first).reshape({n});
}

/// Of length 1, x times exp(logit_scale).
PairedRows paired_rows(Context& ctx, const Tensor& a, const Tensor& b, const Tensor& logit_scale) {
  if (a.shape() != b.shape() || a.rank() != 2)
    throw ShapeError(
        concat("rows ", a.shape().str(), " to be paired with ", b.shape().str(), ", one each"));
  check_number(logit_scale, "scale");
  // The scale goes into the weight of the rows' normalisation, once for each column.
  const Tensor scale = exponential(ctx, logit_scale.reshape({1}));
  RmsNorm unit = unit_norm(a.dim(1));
  const Tensor y = unit(ctx, b);
  unit.weight = multiply(ctx, repeated(ctx, scale, a.dim(1)), unit.weight);
  return {unit(ctx, a), y};
}

}  // namespace

Tensor contrastive_loss(Context& ctx, const Tensor& a, const Tensor& b, float temperature) {
  if (!(temperature > 0)) throw ArgumentError(concat("a temperature of ", temperature));
  return contrastive_loss(ctx, a, b, Tensor::from(std::array{-std::log(temperature)}, {1}));
}

Tensor contrastive_loss(Context& ctx, const Tensor& a, const Tensor& b, const Tensor& logit_scale) {
  return choosing_loss(ctx, paired_rows(ctx, a, b, logit_scale));
}

Tensor sigmoid_pair_loss(Context& ctx, const Tensor& a, const Tensor& b, const Tensor& logit_scale,
                         const Tensor& logit_bias) {
  const auto [x, y] = paired_rows(ctx, a, b, logit_scale);
  check_number(logit_bias, "bias");
  const Tensor bias = repeated(ctx, logit_bias, a.dim(0));
  return judging_loss(ctx, Linear(y, bias, Precision::in_place)(ctx, x));
}

}  // namespace tessera
