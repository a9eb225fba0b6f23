#pragma once
#include "core/context.h"
#include "core/tape.h"
#include "train/gradients.h"

namespace tessera::train {

/// One operation on the way back: adds to the gradients of its inputs what dy, the gradient of its
/// output, makes of them.
struct Backward {
  Context& ctx;
  const Tape& tape;
  Gradients& gradients;
  const Record& r;
  Tensor dy;

  const Tensor& input(std::size_t i) const { return r.inputs[i]; }
  bool wants(std::size_t i) const { return i < r.inputs.size() && tape.wants(r.inputs[i]); }
  Gradients::Target target(std::size_t i) const { return gradients.target(ctx, r.inputs[i]); }
  Tensor sum(std::size_t i) const { return gradients.sum(ctx, r.inputs[i]); }
};

void linear_gradient(const Backward& b);
void layer_norm_gradient(const Backward& b);
void rms_norm_gradient(const Backward& b);
void gather_rows_gradient(const Backward& b);
void activate_gradient(const Backward& b);
void add_gradient(const Backward& b);
void multiply_gradient(const Backward& b);
void rope_gradient(const Backward& b);
void attention_gradient(const Backward& b);
void windows_gradient(const Backward& b);
void patches_gradient(const Backward& b);
void join_rows_gradient(const Backward& b);
void dropout_gradient(const Backward& b);
void cross_entropy_gradient(const Backward& b);
void known_gradient(const Backward& b);

/// input(i)'s gradient += dy; dy itself becomes it where nothing else needs it, so this comes last.
void pass_on(const Backward& b, std::size_t i);

}  // namespace tessera::train
