#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/profile.h"
#include "train/pieces.h"

namespace tessera::train {
namespace {

constexpr std::int64_t kNumbersPerPiece = 1 << 16;

}  // namespace

Optimizer::Optimizer(Parameters parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  const auto share = [](double x) { return x >= 0 && x < 1; };
  if (!share(options.beta1) || !share(options.beta2) || !share(options.momentum) ||
      !share(options.average))
    throw ArgumentError("betas, momentum and average are shares from 0 to below 1");
  for (const NamedTensor& p : parameters_) {
    if (has_first()) first_.push_back(Tensor::zeros(p.tensor.shape()));
    if (options_.kind == OptimizerOptions::Kind::adamw)
      second_.push_back(Tensor::zeros(p.tensor.shape()));
    if (averages()) averages_.push_back(p.tensor.clone());
  }
  rate_factors_.assign(parameters_.size(), 1);
  for (const auto& [pattern, factor] : options.rate_factors) {
    bool any = false;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (!name_matches(parameters_[i].name, pattern)) continue;
      rate_factors_[i] = factor;
      any = true;
    }
    if (!any)
      throw ArgumentError(
          concat("a learning rate for \"", pattern, "\", but nothing of that name is trained"));
  }
}

void Optimizer::step(Context& ctx, const Gradients& gradients, double rate, double factor) {
  const StageScope scope(ctx, "optimiser");
  ++steps_;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor gradient = gradients.find(parameters_[i].tensor);
    if (!gradient) continue;
    const double own = rate * rate_factors_[i];
    if (options_.kind == OptimizerOptions::Kind::adamw) {
      adamw(ctx, i, gradient, own, factor);
    } else {
      sgd(ctx, i, gradient, own, factor);
    }
  }
  average(ctx);
}

void Optimizer::adamw(Context& ctx, std::size_t i, const Tensor& gradient, double rate,
                      double factor) {
  const auto t = static_cast<double>(steps_);
  Tensor weight = parameters_[i].tensor;
  kernels::AdamWStep s{};
  s.factor = static_cast<float>(factor);
  s.beta1 = static_cast<float>(options_.beta1);
  s.beta2 = static_cast<float>(options_.beta2);
  s.step = static_cast<float>(rate / (1 - std::pow(options_.beta1, t)));
  s.second_scale = static_cast<float>(1 / (1 - std::pow(options_.beta2, t)));
  s.eps = static_cast<float>(options_.epsilon);
  s.decay = static_cast<float>(weight.rank() < 2 ? 1 : 1 - rate * options_.weight_decay);
  in_pieces(ctx, weight.numel(), kNumbersPerPiece, [&](std::int64_t begin, std::int64_t end) {
    kernels::AdamWStep piece = s;
    piece.weight = weight.data() + begin;
    piece.first = first_[i].data() + begin;
    piece.second = second_[i].data() + begin;
    piece.gradient = gradient.data() + begin;
    piece.n = end - begin;
    kernels::vector_kernels().training.adamw(piece);
  });
}

/// g = factor gradient + decay w;  v = momentum v + g (the first: g);  w = w - rate v
void Optimizer::sgd(Context& ctx, std::size_t i, const Tensor& gradient, double rate,
                    double factor) {
  Tensor weight = parameters_[i].tensor;
  const auto scale = static_cast<float>(factor), momentum = static_cast<float>(options_.momentum),
             down = static_cast<float>(rate),
             decay = static_cast<float>(weight.rank() < 2 ? 0 : options_.weight_decay);
  in_pieces(ctx, weight.numel(), kNumbersPerPiece, [&](std::int64_t begin, std::int64_t end) {
    float *w = weight.data(), *v = has_first() ? first_[i].data() : nullptr;
    for (std::int64_t j = begin; j < end; ++j) {
      float change = scale * gradient.data()[j] + decay * w[j];
      if (v) change = v[j] = momentum * v[j] + change;  // zero before the first step
      w[j] -= down * change;
    }
  });
}

void Optimizer::average(Context& ctx) {
  const auto kept = static_cast<float>(options_.average);
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const float* w = parameters_[i].tensor.data();
    float* mean = averages_[i].data();
    in_pieces(ctx, averages_[i].numel(), kNumbersPerPiece,
              [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t j = begin; j < end; ++j) mean[j] += (1 - kept) * (w[j] - mean[j]);
              });
  }
}

void Optimizer::swap_averages() {
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    Tensor weight = parameters_[i].tensor;
    std::swap_ranges(weight.data(), weight.data() + weight.numel(), averages_[i].data());
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  const bool adam = options_.kind == OptimizerOptions::Kind::adamw;
  std::vector<NamedTensor> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::string& name = parameters_[i].name;
    if (has_first()) out.push_back({name + (adam ? ".exp_avg" : ".momentum_buffer"), first_[i]});
    if (adam) out.push_back({name + ".exp_avg_sq", second_[i]});
    if (averages()) out.push_back({name + ".average", averages_[i]});
  }
  Tensor steps = Tensor::empty({1}, DType::i64);
  steps.data<std::int64_t>()[0] = steps_;
  out.push_back({"step", steps});
  return out;
}

void Optimizer::restore(const Weights& state) {
  const bool adam = options_.kind == OptimizerOptions::Kind::adamw;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const NamedTensor& p = parameters_[i];
    const auto read = [&](const char* what) {
      return state.get_f32(p.name + what, p.tensor.shape()).clone();
    };
    if (has_first()) first_[i] = read(adam ? ".exp_avg" : ".momentum_buffer");
    if (adam) second_[i] = read(".exp_avg_sq");
    if (averages()) averages_[i] = read(".average");
  }
  const Tensor steps = state.get("step", {1});
  if (steps.dtype() != DType::i64)
    throw FormatError(
        concat(state.where("step"), ": expected I64, found ", name_of(steps.dtype())));
  steps_ = steps.data<std::int64_t>()[0];
}

double gradient_norm(Context& ctx, const Gradients& gradients, const Parameters& parameters,
                     double factor) {
  const StageScope scope(ctx, "optimiser");
  double total = 0;
  for (const NamedTensor& p : parameters) {
    const Tensor gradient = gradients.find(p.tensor);
    if (!gradient) continue;
    const std::int64_t n = gradient.numel();
    std::vector<double> sums(
        static_cast<std::size_t>((n + kNumbersPerPiece - 1) / kNumbersPerPiece));
    in_pieces(ctx, n, kNumbersPerPiece, [&](std::int64_t begin, std::int64_t end) {
      sums[static_cast<std::size_t>(begin / kNumbersPerPiece)] =
          kernels::vector_kernels().training.sum_of_squares(gradient.data() + begin, end - begin);
    });
    for (const double s : sums) total += s;
  }
  return std::sqrt(total) * factor;
}

double Schedule::rate(std::int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double left = static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double done = std::min(1.0, static_cast<double>(step - warmup) / left);
  switch (kind) {
    case Kind::constant:
      return peak;
    case Kind::linear:
      return peak * (1 - (1 - floor) * done);
    case Kind::cosine:
      return peak * (floor + (1 - floor) * 0.5 * (1 + std::cos(3.141592653589793 * done)));
  }
  return peak;
}

}  // namespace tessera::train
