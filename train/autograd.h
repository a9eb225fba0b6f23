#pragma once
#include "core/context.h"
#include "core/tape.h"
#include "train/gradients.h"

namespace tessera::train {

/// Adds to `gradients` those of factor * sum(result) with respect to everything on the tape that
/// leads to `result`, last operation first, and empties the tape as it goes. Afterwards the
/// gradients of what the tape watches are there, those of all else are gone. The numbers do not
/// depend on the number of threads.
void backward(Context& ctx, Tape& tape, const Tensor& result, float factor, Gradients& gradients);

}  // namespace tessera::train
