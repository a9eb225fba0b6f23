#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "train/gradients.h"
#include "train/parameters.h"

namespace tessera::train {

struct OptimizerOptions {
  /// AdamW (Loshchilov and Hutter 2019), or gradient descent with momentum; both in f32, as
  /// PyTorch's.
  enum class Kind { adamw, sgd };
  Kind kind = Kind::adamw;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< AdamW
  double momentum = 0.9;                              ///< SGD; 0: none
  double weight_decay = 0.01;  ///< of matrices; vectors (biases, norms) do not decay
  /// A second set of parameters goes after the first, each step this share of the old: a mean over
  /// about 1 / (1 - average) steps (EMA). 0: none.
  double average = 0;
  /// What the learning rate of parameters is multiplied by, by a pattern of their names; the last
  /// one that matches counts.
  std::vector<std::pair<std::string, double>> rate_factors = {};
};

class Optimizer {
 public:
  /// Throws ArgumentError for options out of range, and patterns that match nothing.
  Optimizer(Parameters parameters, const OptimizerOptions& options);

  /// One step with `factor` times the gradients; a parameter without one stays. The numbers do not
  /// depend on the number of threads.
  void step(Context& ctx, const Gradients& gradients, double rate, double factor);
  std::int64_t steps() const { return steps_; }
  const Parameters& parameters() const { return parameters_; }

  bool averages() const { return options_.average > 0; }
  /// Puts the averages in place of the parameters, and these in place of those.
  void swap_averages();

  /// Moments, averages and number of steps, to be saved and taken up again. Throws FormatError,
  /// ShapeError for a state of other parameters or of another kind.
  std::vector<NamedTensor> state() const;
  void restore(const Weights& state);

 private:
  void adamw(Context& ctx, std::size_t i, const Tensor& gradient, double rate, double factor);
  void sgd(Context& ctx, std::size_t i, const Tensor& gradient, double rate, double factor);
  void average(Context& ctx);
  bool has_first() const {
    return options_.kind == OptimizerOptions::Kind::adamw || options_.momentum > 0;
  }

  Parameters parameters_;
  std::vector<Tensor> first_, second_, averages_;  // first_: of SGD, the momentum
  OptimizerOptions options_;
  std::vector<double> rate_factors_;  // of each parameter
  std::int64_t steps_ = 0;
};

/// The root of the sum of all squares of the parameters' gradients, times a factor. Not finite
/// where one of them is not.
double gradient_norm(Context& ctx, const Gradients& gradients, const Parameters& parameters,
                     double factor);

/// How the learning rate goes: up in a line over `warmup` steps, then down to `floor` times the
/// peak at `steps`.
struct Schedule {
  enum class Kind { constant, linear, cosine };
  Kind kind = Kind::cosine;
  double peak = 1e-3, floor = 0;
  std::int64_t warmup = 0, steps = 1;
  /// Of step number `step`, from 0.
  double rate(std::int64_t step) const;
};

}  // namespace tessera::train
