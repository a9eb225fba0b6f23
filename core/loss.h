#pragma once
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/tensor.h"

namespace tessera {

/// Targets of this value do not count.
constexpr std::int32_t kIgnored = -100;

/// How many targets count.
std::int64_t counted(std::span<const std::int32_t> targets);

/// The sum over rows of -log softmax(logits)[target], [1]; divide by counted(targets) for the mean.
/// logits [N, V]; with smoothing e, the target has probability 1 - e + e/V and every other token
/// e/V. `weights` multiply the rows' losses; empty: all are 1. Throws ArgumentError for a target
/// that is neither in [0, V) nor kIgnored.
Tensor cross_entropy(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                     float smoothing = 0, std::span<const float> weights = {});

}  // namespace tessera
