#pragma once
#include <cstdint>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace tessera {

/// Keys and values of one layer, [length, width] each: as rows of f32 or bf16, or in 8 bits.
struct KeyValues {
  Tensor k, v;
  /// u8 [blocks, heads, bytes of a head's block] (kernels/byte_attention.h), of `length` rows.
  Tensor bytes = {};
  std::int64_t length = 0, width = 0;

  explicit operator bool() const { return k || bytes; }
  /// Whether these are the same numbers in memory.
  bool same_as(const KeyValues& other) const {
    return k.raw() == other.k.raw() && bytes.raw() == other.bytes.raw();
  }
  /// Bytes of a row's numbers, of keys and values.
  double bytes_per_row() const;
  /// Those in 8 bits as rows of f32; others as they are.
  KeyValues as_rows(Context& ctx) const;
};

/// Keys and values of the tokens a decoder has seen, one entry a layer, and those of its memory
/// (cross-attention). Copying shares the numbers; clone() gives a cache of its own (the memory's
/// stay shared: they are never written).
class KvCache {
 public:
  /// What is kept: f32, or bf16 or i8 (a scale for each row and head), to which what is given is
  /// rounded.
  struct Types {
    DType tokens = DType::f32, memory = DType::f32;
    std::int64_t heads = 1;  ///< of keys
  };

  class Layer {
   public:
    /// Appends rows [T, width] and returns all keys and values so far.
    KeyValues append(const Tensor& k, const Tensor& v);
    std::int64_t length() const { return length_; }

    /// Those of a decoder's memory, [R, width]; empty until it has seen one. Never written again:
    /// shared by copies and clones. While a tape is live, they are kept as they are given.
    void set_memory(Context& ctx, const Tensor& k, const Tensor& v);
    const KeyValues& memory() const { return memory_; }

   private:
    friend class KvCache;
    void append_bytes(const Tensor& k, const Tensor& v);
    void become(const Layer& other, std::int64_t same);
    Types types_;
    KeyValues memory_;
    Tensor k_, v_, bytes_;  // [capacity, width], or blocks
    std::int64_t length_ = 0;
  };

  KvCache() = default;
  explicit KvCache(std::int64_t layers) : KvCache(layers, Types()) {}
  KvCache(std::int64_t layers, const Types& types);

  Layer& layer(std::int64_t i) { return layers_[static_cast<std::size_t>(i)]; }
  std::int64_t layers() const { return static_cast<std::int64_t>(layers_.size()); }
  /// Tokens held (of the first layer).
  std::int64_t length() const { return layers_.empty() ? 0 : layers_.front().length_; }
  /// Forgets all but the first `length` tokens; keeps the memory.
  void truncate(std::int64_t length);
  KvCache clone() const;
  /// Holds what `other` does, as a clone of it would. The first `same` tokens of both are alike,
  /// and are not copied; memory is taken only where there is too little of it.
  void become(const KvCache& other, std::int64_t same);

 private:
  std::vector<Layer> layers_;
};

}  // namespace tessera
