#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/train_options.h"
#include "fusion/adapter.h"

namespace tessera::cli {

struct FinetuneOptions : TrainFlags {
  std::string model, file, validation, recipe = "all", language, task, chat_template, pair_loss;
  std::optional<std::string> answer_prefix;
  std::vector<std::string> freeze, only, rewards;
  std::int64_t steps = 0, limit = 0, texts = 1, sampled_tokens = 0, draws = 5;
  double epochs = 3, head_share = 0.3, later_rate = 0.1, smoothing = 0, least_view = 1;
  fusion::LoraOptions lora{.rank = 0};

  /// The options of every command that learns examples.
  void add_common(Command& command, const char* what_a_batch_has);
};

/// Teaches a checkpoint (`model`) examples (`file`) and returns the exit code.
int finetune(const FinetuneOptions& options);

}  // namespace tessera::cli
