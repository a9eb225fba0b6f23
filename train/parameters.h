#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/weights.h"

namespace tessera::train {

/// The tensors of a model in f32 memory of their own: layers made of Weights::of(parameters) share
/// it, an optimiser changes it.
using Parameters = std::vector<NamedTensor>;

/// Copies of all tensors of floats of a checkpoint, int8 matrices multiplied out. A head that is
/// the token embedding once more is left out. Throws UnsupportedError for other number formats.
Parameters copy_of(const Weights& weights);

/// Whether a name is what a pattern says, in which * stands for any characters.
bool name_matches(std::string_view name, std::string_view pattern);
/// Those whose names match one of the patterns, in which * stands for any characters. Throws
/// ArgumentError for a pattern that matches nothing.
Parameters matching(const Parameters& parameters, const std::vector<std::string>& patterns);
/// Those whose names match none.
Parameters not_matching(const Parameters& parameters, const std::vector<std::string>& patterns);

std::int64_t count(const Parameters& parameters);

/// First values, drawn from (seed, name): matrices and convolutions from a normal distribution of
/// this deviation, `bias` 0, other vectors 1 (norms).
Tensor initial_value(const std::string& name, const Shape& shape, double deviation,
                     std::uint64_t seed);

}  // namespace tessera::train
