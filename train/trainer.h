#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "core/context.h"
#include "core/tape.h"
#include "train/checkpoint.h"
#include "train/event_file.h"
#include "train/gradients.h"
#include "train/optimizer.h"
#include "train/parameters.h"

namespace tessera::train {

struct TrainerOptions {
  std::filesystem::path run;  ///< folder of the log, the checkpoints and the result
  std::string weights_file = "model.safetensors";  ///< what the parameters are saved as
  std::int64_t accumulation = 1;                   ///< batches a step
  Schedule schedule;                               ///< its steps are those of the run
  OptimizerOptions optimizer;
  double clip = 1.0;                  ///< largest norm of the gradient; 0: any
  std::int64_t checkpoint_every = 0;  ///< steps; 0: only at the end
  std::int64_t checkpoints_kept = 2;
  std::int64_t evaluate_every = 0;  ///< steps; 0: never
  std::uint64_t seed = 1;           ///< of dropout
  /// Blocks keep their inputs alone and are run again on the way back (checkpointed()).
  bool checkpoint_activations = false;
};

/// Of one batch: the sum of the losses of `count` targets, to be divided by the count of the step.
struct BatchLoss {
  Tensor sum;  ///< [1]
  std::int64_t count = 0;
};

struct StepReport {
  std::int64_t step = 0, steps = 0;  ///< steps done and of the run
  double loss = 0, rate = 0, gradient_norm = 0;
  std::int64_t tokens = 0;  ///< targets of this step
  double seconds = 0;       ///< it took
  std::optional<double> evaluation;
};

/// The loop of training: batches, gradients, clipping, optimiser, checkpoints, log. What happens in
/// a step follows from its number alone, so a run taken up again goes on as if it had never
/// stopped, to the bit.
class Trainer {
 public:
  /// `all` is saved, `trained` (some of them) is changed.
  Trainer(Parameters all, const Parameters& trained, TrainerOptions options);

  /// Computes a batch of a step, batch in [0, accumulation). Gradients go through ctx.
  std::function<BatchLoss(Context& ctx, std::int64_t step, std::int64_t batch)> batch_loss;
  /// Writes what belongs to the model besides its weights.
  SaveDescription describe;
  /// A score on data held out, without a tape; of the averages, where there are such.
  std::function<double(Context& ctx)> evaluate;
  std::function<void(const StepReport&)> on_step;
  /// Asked after every step; true ends the run with a checkpoint.
  std::function<bool()> stop;

  /// Takes up the newest checkpoint in the run's folder; false where there is none.
  bool resume();
  /// Trains to the last step and saves the model (the averages, where there are such); false where
  /// it was stopped before. Throws Error where the loss or a gradient is not finite (naming step
  /// and parameter); what was saved stays.
  bool run(Context& ctx);
  std::int64_t step() const { return state_.step; }

 private:
  StepReport one_step(Context& ctx);
  [[noreturn]] void not_finite(double loss) const;
  void open_log();
  void log(const StepReport& report);
  void checkpoint();

  Parameters all_;
  Optimizer optimizer_;
  TrainerOptions options_;
  TrainerState state_;
  std::optional<std::int64_t> saved_;
  std::optional<EventFile> events_;
  Tape tape_;
  Gradients gradients_;
};

}  // namespace tessera::train
