#include "train/autograd.h"

#include <unordered_map>

#include "core/error.h"
#include "core/profile.h"
#include "train/op_gradients.h"

namespace tessera::train {
namespace {

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
  }
}

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
  }
  return "";
}

}  // namespace

void backward(Context& ctx, Tape& tape, const Tensor& result, float factor, Gradients& gradients) {
  if (!tape.wants(result))
    throw ArgumentError("the result follows from nothing that is trained: no gradient to find");
  std::vector<Record>& records = tape.records();
  std::unordered_map<const void*, std::size_t> first_writer;
  for (std::size_t i = 0; i < records.size(); ++i)
    first_writer.emplace(records[i].output.memory(), i);

  Tensor seed = gradients.sum(ctx, result);
  for (std::int64_t i = 0; i < seed.numel(); ++i) seed.data()[i] = factor;
  while (!records.empty()) {
    {
      const Record& r = records.back();
      const StageScope scope(ctx, name_of(r.op));
      if (const Tensor dy = gradients.find(r.output)) add_gradients({ctx, tape, gradients, r, dy});
      // Nothing before this writes there, so all that used it has been seen.
      if (first_writer.at(r.output.memory()) == records.size() - 1) gradients.drop(r.output);
    }
    records.pop_back();
  }
  tape.clear();
}

}  // namespace tessera::train
