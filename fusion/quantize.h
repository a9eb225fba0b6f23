#pragma once
#include <cstdint>
#include <filesystem>

#include "core/weights.h"

namespace tessera::fusion {

struct QuantizeReport {
  std::int64_t eight_bits = 0, four_bits = 0;  ///< matrices that have so many now
  std::int64_t bytes_before = 0, bytes_after = 0;
};

/// Saves the checkpoint in `from` with its matrices rounded as they would be when it is opened in
/// `precision` (int8 or int4), token tables and what an adapter of the checkpoint's own is added to
/// to int8, all else as it is or, with `half`, as f16 where its numbers are not too large; under
/// the names and with the `quantization_config` of compressed-tensors, so that it opens like any
/// other. `to` must not
/// exist or be empty; config.json is written last, so that what is not complete is no checkpoint.
/// Throws ArgumentError, IoError and what Model::open throws.
QuantizeReport quantize_checkpoint(const std::filesystem::path& from,
                                   const std::filesystem::path& to, Precision precision,
                                   bool half = false);

}  // namespace tessera::fusion
