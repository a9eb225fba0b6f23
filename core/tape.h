#pragma once
#include <cstdint>
#include <functional>
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
  attention,      ///< q, k, v, log-sum-exp of scores [Tq, heads]; attention, filled in; begin
  windows,        ///< x; window
  patches,        ///< x; window.kernel
  join_rows,      ///< a, b, ...
  dropout,        ///< x; number: share dropped; stream
  cross_entropy,  ///< logits, totals, [weights]; ids: targets; number: label smoothing
  known,          ///< x, d sum(y) / dx for y [1], which nothing else uses
  segment,        ///< x, what else is wanted inside; again; number: bytes it makes; stream: draws
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
  std::vector<std::int64_t> begin = {};  ///< rows of each of several items, as given; empty: of one
  std::function<Tensor(Context&, const Tensor& x)> again = {};
};

/// The operations that lead from trainable parameters to a result, in order; a Context with a tape
/// fills it. Tensors are known by their memory, so a view is as good as the tensor it is of, and an
/// operation may write to a part of its output. What is on the tape must not be changed before its
/// gradients are found.
class Tape {
 public:
  Tape() = default;
  /// For a part of what `outer` (which must live longer) records: it wants what that one wants, and
  /// its dropout draws from the streams from number `streams` on.
  Tape(const Tape& outer, std::uint64_t streams)
      : outer_(&outer), seed_(outer.seed_), streams_(streams) {}

  /// The gradient of this tensor is wanted. What is never named here is frozen, and operations on
  /// frozen tensors alone are not recorded.
  void watch(const Tensor& parameter) { watched_.insert(parameter.memory()); }
  /// Whether the tensor is a wanted one or follows from one.
  bool wants(const Tensor& t) const {
    return t && (watched_.contains(t.memory()) || made_.contains(t.memory()) ||
                 (outer_ && outer_->wants(t)));
  }
  void record(Record record);
  std::vector<Record>& records() { return records_; }
  /// Forgets the operations, not what is watched.
  void clear();
  /// This tensor is made by no record any more; its memory may become that of another.
  void forget(const Tensor& made) { made_.erase(made.memory()); }
  /// Bytes that the results of the operations have, and most of what a segment makes again.
  double kept_bytes() const;

  /// Dropout draws its numbers from (seed, number of the call since the seed was set).
  void set_seed(std::uint64_t seed);
  std::uint64_t next_stream();
  std::uint64_t streams() const { return streams_; }
  void set_streams(std::uint64_t drawn) { streams_ = drawn; }

  /// Whether checkpointed() runs a segment again instead of keeping what it makes.
  bool keeps_inputs_only = false;

 private:
  const Tape* outer_ = nullptr;
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

/// run(ctx, x). With a tape that keeps inputs only, of all that this makes x and the result are
/// kept, and it is run again when its gradients are found (Chen et al. 2016), with the same
/// dropout: the same gradients for less memory and more time. `run` gives the same each time it is
/// called, and owns what it refers to until the tape is cleared.
Tensor checkpointed(Context& ctx, const Tensor& x,
                    std::function<Tensor(Context&, const Tensor& x)> run);

}  // namespace tessera
