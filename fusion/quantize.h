#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>

#include "core/weights.h"
#include "fusion/calibration.h"

namespace tessera::fusion {

struct QuantizeOptions {
  Precision precision = Precision::int8;  ///< or int4
  bool half = false;                      ///< all else as f16 where its numbers are not too large
  /// Numbers are rounded so that the layers' outputs on such data change little (core/gptq.h),
  /// instead of each to its nearest. Needs the model in f32 and about 2 GB besides. The same
  /// numbers for any number of threads.
  std::optional<CalibrationOptions> calibration = {};
  ContextOptions context = {};  ///< for calibration
  /// What is done ("write": texts of its own; "calibrate": examples of a pass over all; "round":
  /// matrices), how many of how many; false: nothing is written, and the report says cancelled.
  std::function<bool(const char* what, std::int64_t done, std::int64_t total)> on_progress = {};
};

struct QuantizeReport {
  std::int64_t eight_bits = 0, four_bits = 0;  ///< matrices that have so many now
  std::int64_t calibrated = 0;                 ///< of them those whose inputs were seen
  std::int64_t examples = 0;                   ///< that showed them
  std::int64_t bytes_before = 0, bytes_after = 0;
  bool cancelled = false;
};

/// Saves the checkpoint in `from` with its matrices rounded as they would be when it is opened in
/// that precision (or calibrated), token tables and what an adapter of the checkpoint's own is
/// added to to int8, all else as it is or halved; under the names and with the
/// `quantization_config` of compressed-tensors, so that it opens like any other. `to` must not
/// exist or be empty; config.json is written last, so that what is not complete is no checkpoint.
/// Throws ArgumentError, IoError and what Model::open and Calibration throw.
QuantizeReport quantize_checkpoint(const std::filesystem::path& from,
                                   const std::filesystem::path& to, const QuantizeOptions& options);

}  // namespace tessera::fusion
