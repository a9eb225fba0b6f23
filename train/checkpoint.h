#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "train/optimizer.h"
#include "train/parameters.h"

// A run's folder: log.jsonl, event files for TensorBoard, checkpoint-<step>/ while it goes on, and
// at the end the model itself. A checkpoint is a model in Hugging Face's layout with
// optimizer.safetensors and trainer_state.json beside it.
namespace tessera::train {

/// Writes config.json, tokenizer.json and the like to a folder.
using SaveDescription = std::function<void(const std::filesystem::path& folder)>;

struct TrainerState {
  std::int64_t step = 0;  ///< steps done
  std::uint64_t seed = 0;
};

/// The newest complete checkpoint of a run.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& run);

/// Writes checkpoint-<step> under another name first, renames it when its bytes are on the disk,
/// and then removes all but the newest `kept`. Throws IoError and leaves older ones alone.
void save_checkpoint(const std::filesystem::path& run, const std::string& weights_file,
                     const Parameters& parameters, const Optimizer& optimizer,
                     const TrainerState& state, const SaveDescription& describe, std::int64_t kept);

/// Puts a checkpoint's numbers into the parameters and the optimiser. Throws IoError, FormatError.
TrainerState load_checkpoint(const std::filesystem::path& checkpoint,
                             const std::string& weights_file, const Parameters& parameters,
                             Optimizer& optimizer);

/// Writes the model alone: `file` and what belongs into its folder.
void save_model(const std::filesystem::path& file, const Parameters& parameters,
                const SaveDescription& describe);

}  // namespace tessera::train
