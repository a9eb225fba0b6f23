#include "train/autograd.h"

#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/profile.h"
#include "train/op_gradients.h"
#include "train/pieces.h"

namespace tessera::train {
namespace {

void segment_gradient(const Backward& b);

/// No default: the compiler names an operation without a gradient.
void add_gradients(const Backward& b) {
  switch (b.r.op) {
    case Op::linear:
      return linear_gradient(b);
    case Op::layer_norm:
      return layer_norm_gradient(b);
    case Op::rms_norm:
      return rms_norm_gradient(b);
    case Op::gather_rows:
      return gather_rows_gradient(b);
    case Op::activate:
      return activate_gradient(b);
    case Op::add:
      return add_gradient(b);
    case Op::multiply:
      return multiply_gradient(b);
    case Op::rope:
      return rope_gradient(b);
    case Op::attention:
      return attention_gradient(b);
    case Op::windows:
      return windows_gradient(b);
    case Op::patches:
      return patches_gradient(b);
    case Op::join_rows:
      return join_rows_gradient(b);
    case Op::dropout:
      return dropout_gradient(b);
    case Op::cross_entropy:
      return cross_entropy_gradient(b);
    case Op::known:
      return known_gradient(b);
    case Op::segment:
      return segment_gradient(b);
  }
}

/// Null: it consists of stages.
const char* name_of(Op op) {
  switch (op) {
    case Op::linear:
      return "linear, backward";
    case Op::layer_norm:
    case Op::rms_norm:
      return "norm, backward";
    case Op::attention:
      return "attention, backward";
    case Op::activate:
      return "activation, backward";
    case Op::cross_entropy:
    case Op::known:
      return "loss, backward";
    case Op::gather_rows:
      return "embedding, backward";
    case Op::add:
    case Op::multiply:
    case Op::rope:
    case Op::windows:
    case Op::patches:
    case Op::join_rows:
    case Op::dropout:
      return "other, backward";
    case Op::segment:
      return nullptr;
  }
  return nullptr;
}

/// Goes back over what is on the tape, whose results' gradients are found where they are wanted.
void go_back(Context& ctx, Tape& tape, Gradients& gradients) {
  std::vector<Record>& records = tape.records();
  std::unordered_map<const void*, std::size_t> first_writer;
  for (std::size_t i = 0; i < records.size(); ++i)
    first_writer.emplace(records[i].output.memory(), i);
  while (!records.empty()) {
    {
      const Record& r = records.back();
      std::optional<StageScope> scope;
      if (const char* name = name_of(r.op)) scope.emplace(ctx, name);
      if (const Tensor dy = gradients.find(r.output)) add_gradients({ctx, tape, gradients, r, dy});
      // Nothing before this writes there, so all that used it has been seen.
      if (first_writer.at(r.output.memory()) == records.size() - 1) {
        gradients.drop(r.output);
        tape.forget(r.output);
      }
    }
    records.pop_back();
  }
}

// What it did is done again, on a tape this time.
void segment_gradient(const Backward& b) {
  Tape inner(b.tape, b.r.stream);
  const Tensor y = [&] {
    const TapeScope recording(b.ctx, &inner);
    return b.r.again(b.ctx, b.input(0));
  }();
  if (!b.gradients.hand_over(b.r.output, y)) {
    for_rows(b.ctx, b.gradients.sum(b.ctx, y),
             [&](std::int64_t row, std::int64_t width, float* dy) {
               kernels::vector_kernels().training.add_scaled(row_of(b.dy, row), 1.0f, width, dy);
             });
  }
  go_back(b.ctx, inner, b.gradients);
}

}  // namespace

void backward(Context& ctx, Tape& tape, const Tensor& result, float factor, Gradients& gradients) {
  if (!tape.wants(result))
    throw ArgumentError("the result follows from nothing that is trained: no gradient to find");
  Tensor seed = gradients.sum(ctx, result);
  for (std::int64_t i = 0; i < seed.numel(); ++i) seed.data()[i] = factor;
  go_back(ctx, tape, gradients);
  tape.clear();
}

}  // namespace tessera::train
