#pragma once
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Keys and values of the tokens a decoder has seen, one entry a layer, and those of its memory
/// (cross-attention). Copying shares the numbers; clone() gives a cache of its own (the memory's
/// stay shared: they are never written).
class KvCache {
 public:
  class Layer {
   public:
    /// Appends rows [T, width] and returns all keys and values so far as views [length, width].
    struct View {
      Tensor k, v;
    };
    View append(const Tensor& k, const Tensor& v);
    std::int64_t length() const { return length_; }

    /// Those of a decoder's memory, [R, width]; empty until it has seen one. Never written again:
    /// shared by copies and clones.
    void set_memory(const Tensor& k, const Tensor& v);
    const View& memory() const { return memory_; }

   private:
    friend class KvCache;
    DType type_ = DType::f32;
    View memory_;
    Tensor k_, v_;  // [capacity, width]
    std::int64_t length_ = 0;
  };

  KvCache() = default;
  /// `type` of the numbers that are kept: f32, or bf16, to which what is given is rounded.
  explicit KvCache(std::int64_t layers, DType type = DType::f32);

  Layer& layer(std::int64_t i) { return layers_[static_cast<std::size_t>(i)]; }
  std::int64_t layers() const { return static_cast<std::int64_t>(layers_.size()); }
  /// Tokens held (of the first layer).
  std::int64_t length() const { return layers_.empty() ? 0 : layers_.front().length_; }
  /// Forgets all but the first `length` tokens; keeps the memory.
  void truncate(std::int64_t length);
  KvCache clone() const;

 private:
  std::vector<Layer> layers_;
};

}  // namespace tessera
