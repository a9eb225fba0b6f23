#pragma once
#include <cstdint>
#include <unordered_set>
#include <vector>

#include "core/context.h"
#include "core/layers.h"
#include "core/tensor.h"

namespace tessera {

/// What was done to tensors; train/autograd.cpp knows the gradient of each. Named are the inputs in
/// their order (those in brackets may be empty) and what else of a Record counts.
enum class Op : std::uint8_t {
  linear,         ///< x, weight, [bias], [residual]; inputs_first
  layer_norm,     ///< x, weight, bias; number: epsilon
  rms_norm,       ///< x, weight; number: epsilon
  gather_rows,    ///< table; ids
  activate,       ///< x; activation
  add,            ///< a, b
  multiply,       ///< a, b
  rope,           ///< x, angles
  attention,      ///< q, k, v; attention, its defaults and stream filled in
  windows,        ///< x; window
  patches,        ///< x; window.kernel
  join_rows,      ///< a, b, ...
  dropout,        ///< x; number: share dropped; stream
  cross_entropy,  ///< logits, totals, [weights]; ids: targets; number: label smoothing
  known,          ///< x, d sum(y) / dx for y [1]
};

/// How windows are cut from frames [T, C] for a convolution.
struct WindowOptions {
  std::int64_t kernel = 1, stride = 1, padding = 0;
  bool channels_first = false;  ///< a window is [C, kernel], not [kernel, C]
};

struct Record {
  Op op;
  std::vector<Tensor> inputs;
  Tensor output;
  bool inputs_first = false;  ///< a weight that lies as [in, out]
  Activation activation = Activation::none;
  AttentionOptions attention = {};
  WindowOptions window = {};
  float number = 0;
  std::uint64_t stream = 0;
  std::vector<std::int32_t> ids = {};
};

/// The operations that lead from trainable parameters to a result, in order; a Context with a tape
/// fills it. Tensors are known by their memory, so a view is as good as the tensor it is of, and an
/// operation may write to a part of its output. What is on the tape must not be changed before its
/// gradients are found.
class Tape {
 public:
  /// The gradient of this tensor is wanted. What is never named here is frozen, and operations on
  /// frozen tensors alone are not recorded.
  void watch(const Tensor& parameter) { watched_.insert(parameter.memory()); }
  /// Whether the tensor is a wanted one or follows from one.
  bool wants(const Tensor& t) const {
    return t && (watched_.contains(t.memory()) || made_.contains(t.memory()));
  }
  void record(Record record);
  std::vector<Record>& records() { return records_; }
  /// Forgets the operations, not what is watched.
  void clear();

  /// Dropout draws its numbers from (seed, number of the call since the seed was set).
  void set_seed(std::uint64_t seed);
  std::uint64_t next_stream();

 private:
  std::unordered_set<const void*> watched_, made_;
  std::vector<Record> records_;
  std::uint64_t seed_ = 0, streams_ = 0;
};

/// While it lives, the context records on this tape; null: on none.
class TapeScope {
 public:
  TapeScope(Context& ctx, Tape* tape) : ctx_(ctx), before_(ctx.tape) { ctx.tape = tape; }
  ~TapeScope() { ctx_.tape = before_; }
  TapeScope(const TapeScope&) = delete;
  TapeScope& operator=(const TapeScope&) = delete;

 private:
  Context& ctx_;
  Tape* before_;
};

}  // namespace tessera
