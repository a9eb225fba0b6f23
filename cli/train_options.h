#pragma once
#include <cstdint>
#include <string>

#include "cli/options.h"
#include "train/trainer.h"

namespace tessera::cli {

/// Options that every training command has.
struct TrainFlags {
  train::TrainerOptions trainer;
  std::vector<std::string> rate_factors;
  std::string run, schedule = "cosine", optimizer = "adamw";
  std::int64_t batch = 16;
  int threads = 0;
  bool resume = false, dry_run = false, json = false, timings = false, bf16 = false;

  void add_to(Command& command, const char* what_a_batch_has);
  /// The trainer's options with the flags in.
  train::TrainerOptions options() const;
  /// Throws ArgumentError where a folder has checkpoints of a run and --resume was not given.
  void check_folder() const;
};

/// The progress line of a run, and its sums.
class TrainProgress {
 public:
  explicit TrainProgress(const TrainFlags& flags) : progress_("train", "steps", !flags.json) {}
  void on_step(const train::StepReport& r);
  void clear() { progress_.clear(); }

  double tokens_per_second() const {
    return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0;
  }
  double loss() const { return loss_; }
  /// Of the last evaluation; negative: there was none.
  double evaluation() const { return evaluation_; }

 private:
  Progress progress_;
  double seconds_ = 0, loss_ = 0, evaluation_ = -1;
  std::int64_t tokens_ = 0;
};

}  // namespace tessera::cli
