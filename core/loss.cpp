#include "core/loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
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

namespace {

double log_add(double a, double b) {
  const double most = std::max(a, b), least = std::min(a, b);
  return std::isinf(least) ? most : most + std::log1p(std::exp(least - most));
}

/// The labels with blanks around each, and what the frames say of them.
class Alignments {
 public:
  Alignments(const Tensor& logits, std::span<const std::int32_t> targets, std::int32_t blank)
      : frames_(logits.dim(0)), vocab_(logits.dim(1)), logs_(logits.to_f32().clone()) {
    for (const std::int32_t t : targets) states_.insert(states_.end(), {blank, t});
    states_.push_back(blank);
    for (std::int64_t t = 0; t < frames_; ++t) {
      float* row = logs_.data() + t * vocab_;
      float total = 0, sum = 0;
      kernels::vector_kernels().training.log_sum_exp(row, vocab_, &total, &sum);
      for (std::int64_t v = 0; v < vocab_; ++v) row[v] -= total;
    }
    forward_ = paths(false);
    total_ = log_add(forward_.back(), states_.size() > 1 ? forward_[forward_.size() - 2] : kNever);
  }
  double total() const { return total_; }

  /// d -log p / d logits: softmax less the share of the alignments that say it there.
  Tensor gradient() const {
    const std::vector<double> backward = paths(true);
    Tensor gradient = Tensor::empty({frames_, vocab_});
    std::vector<double> shares(static_cast<std::size_t>(vocab_));
    for (std::int64_t t = 0; t < frames_; ++t) {
      std::ranges::fill(shares, 0.0);
      for (std::size_t s = 0; s < states_.size(); ++s) {
        const std::size_t at = static_cast<std::size_t>(t) * states_.size() + s;
        shares[static_cast<std::size_t>(states_[s])] +=
            std::exp(forward_[at] + backward[at] - said(t, s) - total_);
      }
      for (std::int64_t v = 0; v < vocab_; ++v) {
        gradient.data()[t * vocab_ + v] =
            static_cast<float>(std::exp(static_cast<double>(logs_.data()[t * vocab_ + v])) -
                               shares[static_cast<std::size_t>(v)]);
      }
    }
    return gradient;
  }

 private:
  static constexpr double kNever = -std::numeric_limits<double>::infinity();

  double said(std::int64_t t, std::size_t s) const {
    return static_cast<double>(logs_.data()[t * vocab_ + states_[s]]);
  }
  /// log p of the ways to (or, turned round, from) each state at each frame, it included.
  std::vector<double> paths(bool turned) const {
    const std::size_t n = states_.size();
    std::vector<double> all(static_cast<std::size_t>(frames_) * n, kNever);
    for (std::int64_t i = 0; i < frames_; ++i) {
      const std::int64_t t = turned ? frames_ - 1 - i : i;
      const auto place = [&](std::int64_t time, std::size_t s) {
        return static_cast<std::size_t>(time) * n + s;
      };
      const std::int64_t before = turned ? t + 1 : t - 1;
      for (std::size_t j = 0; j < n; ++j) {
        const auto state = [&](std::size_t k) { return turned ? n - 1 - k : k; };
        const std::size_t s = state(j);
        double sum = i == 0 ? (j < 2 ? 0 : kNever) : all[place(before, s)];
        if (i > 0 && j >= 1) sum = log_add(sum, all[place(before, state(j - 1))]);
        // a label may follow another one at once, unless it is the same
        const bool skips = j >= 2 && s % 2 == 1 && states_[s] != states_[state(j - 2)];
        if (i > 0 && skips) sum = log_add(sum, all[place(before, state(j - 2))]);
        all[place(t, s)] = sum + said(t, s);
      }
    }
    return all;
  }

  std::int64_t frames_, vocab_;
  Tensor logs_;  // [T, V], normalised
  std::vector<std::int32_t> states_;
  std::vector<double> forward_;
  double total_ = 0;
};

}  // namespace

Tensor ctc_loss(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                std::int32_t blank) {
  const std::int64_t frames = logits.dim(0), vocab = logits.dim(1);
  std::int64_t least = std::ssize(targets);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0 || targets[i] >= vocab || targets[i] == blank)
      throw ArgumentError(concat("label ", targets[i], " is blank or outside of ", vocab, " ones"));
    least += i > 0 && targets[i] == targets[i - 1];
  }
  if (blank < 0 || blank >= vocab || frames < std::max<std::int64_t>(least, 1)) {
    throw ArgumentError(
        concat(frames, " frames for ", targets.size(), " labels that need ", least));
  }
  const StageScope scope(ctx, "loss");
  const Alignments alignments(logits, targets, blank);
  Tensor loss = ctx.empty({1});
  loss.data()[0] = static_cast<float>(-alignments.total());
  if (ctx.tape && ctx.tape->wants(logits)) {
    ctx.tape->record({.op = Op::known, .inputs = {logits, alignments.gradient()}, .output = loss});
  }
  return loss;
}

namespace {

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
