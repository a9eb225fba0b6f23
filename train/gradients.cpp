#include "train/gradients.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace tessera::train {
namespace {

bool is_whole(const Tensor& t) { return t.is_contiguous() && t.nbytes() == t.memory_bytes(); }

}  // namespace

Tensor Gradients::find(const Tensor& t) const {
  const auto found = blocks_.find(t.memory());
  return found == blocks_.end() ? Tensor() : t.view_of(found->second);
}

Gradients::Target Gradients::target(Context& ctx, const Tensor& t) {
  Tensor& block = blocks_[t.memory()];
  const bool first = !block, fresh = first && is_whole(t);
  if (first)
    block = ctx.empty({static_cast<std::int64_t>(t.memory_bytes() / sizeof(float))}, DType::f32);
  if (first && !fresh) std::memset(block.raw(), 0, block.nbytes());
  return {t.view_of(block), fresh};
}

Tensor Gradients::sum(Context& ctx, const Tensor& t) {
  Target to = target(ctx, t);
  if (to.fresh) std::memset(to.gradient.raw(), 0, to.gradient.nbytes());
  return to.gradient;
}

bool Gradients::hand_over(const Tensor& from, const Tensor& to) {
  const auto source = blocks_.find(from.memory());
  if (source == blocks_.end() || !is_whole(from) || !is_whole(to) || from.nbytes() != to.nbytes())
    return false;
  if (const auto found = blocks_.find(to.memory()); found != blocks_.end()) return false;
  blocks_[to.memory()] = std::exchange(source->second, {});
  blocks_.erase(from.memory());
  return true;
}

bool Gradients::take(const Tensor& t, const Tensor& gradient) {
  if (blocks_.contains(t.memory()) || !is_whole(t) || !is_whole(gradient) ||
      t.nbytes() != gradient.nbytes() || gradient.dtype() != DType::f32)
    return false;
  blocks_[t.memory()] = gradient;
  return true;
}

}  // namespace tessera::train
