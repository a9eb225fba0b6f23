#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/loss.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
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

}  // namespace tessera
