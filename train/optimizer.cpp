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

AdamW::AdamW(Parameters parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const NamedTensor& p : parameters_) {
    first_.push_back(Tensor::zeros(p.tensor.shape()));
    second_.push_back(Tensor::zeros(p.tensor.shape()));
  }
}

void AdamW::step(Context& ctx, const Gradients& gradients, double rate, double factor) {
  const StageScope scope(ctx, "optimiser");
  ++steps_;
  const auto t = static_cast<double>(steps_);
  kernels::AdamWStep s{};
  s.factor = static_cast<float>(factor);
  s.beta1 = static_cast<float>(options_.beta1);
  s.beta2 = static_cast<float>(options_.beta2);
  s.step = static_cast<float>(rate / (1 - std::pow(options_.beta1, t)));
  s.second_scale = static_cast<float>(1 / (1 - std::pow(options_.beta2, t)));
  s.eps = static_cast<float>(options_.epsilon);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Tensor weight = parameters_[i].tensor;
    const Tensor gradient = gradients.find(weight);
    if (!gradient) continue;
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
}

std::vector<NamedTensor> AdamW::state() const {
  std::vector<NamedTensor> out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out.push_back({parameters_[i].name + ".exp_avg", first_[i]});
    out.push_back({parameters_[i].name + ".exp_avg_sq", second_[i]});
  }
  Tensor steps = Tensor::empty({1}, DType::i64);
  steps.data<std::int64_t>()[0] = steps_;
  out.push_back({"step", steps});
  return out;
}

void AdamW::restore(const Weights& state) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, tensor] = parameters_[i];
    first_[i] = state.get_f32(name + ".exp_avg", tensor.shape()).clone();
    second_[i] = state.get_f32(name + ".exp_avg_sq", tensor.shape()).clone();
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
