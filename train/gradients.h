#pragma once
#include <unordered_map>

#include "core/context.h"
#include "core/tensor.h"

namespace tessera::train {

/// Gradients by the memory of what they are gradients of: one block for each block, laid out alike,
/// so that the gradient of a view is the same view of the gradient.
class Gradients {
 public:
  /// The gradient found so far, with this tensor's shape and strides; empty where there is none.
  Tensor find(const Tensor& t) const;
  /// Where to write it. `fresh`: nothing is there yet and all of it is to be written; else what is
  /// written is to be added.
  struct Target {
    Tensor gradient;
    bool fresh = false;
  };
  Target target(Context& ctx, const Tensor& t);
  /// The same; where nothing is there yet, zeros.
  Tensor sum(Context& ctx, const Tensor& t);
  /// Makes the gradient of `from` that of `to`, where `to` has none yet and is as large; whether
  /// it did. The gradient of `from` is then gone.
  bool hand_over(const Tensor& from, const Tensor& to);
  void drop(const Tensor& t) { blocks_.erase(t.memory()); }
  /// Makes `gradient` that of t, which it lies like, where t has none yet and both are whole;
  /// whether it did.
  bool take(const Tensor& t, const Tensor& gradient);
  /// Nothing has been found yet. The memory may be used for something else until it is needed.
  void reset() { blocks_.clear(); }

 private:
  std::unordered_map<const void*, Tensor> blocks_;
};

}  // namespace tessera::train
