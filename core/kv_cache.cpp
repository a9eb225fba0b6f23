#include "core/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "core/kernels/vector.h"

namespace tessera {
namespace {

using kernels::kByteKeys;
constexpr std::int64_t kFirstCapacity = 64;

std::int64_t bytes_of_row(const Tensor& rows, std::int64_t count) {
  return count * static_cast<std::int64_t>(size_of(rows.dtype()));
}

/// Rows of f32, or of the type of `rows`, written from row `at` on.
void write_rows(Tensor& rows, std::int64_t at, const Tensor& source) {
  const std::int64_t width = rows.dim(1), step = bytes_of_row(rows, width);
  const bool round = rows.dtype() == DType::bf16 && source.dtype() == DType::f32;
  auto* to = static_cast<std::uint8_t*>(rows.raw()) + at * step;
  for (std::int64_t i = 0; i < source.dim(0); ++i, to += step) {
    if (round) {
      kernels::vector_kernels().half.round_row(source.data() + i * source.stride(0), width, width,
                                               reinterpret_cast<std::uint16_t*>(to));
    } else {
      std::memcpy(to,
                  static_cast<const std::uint8_t*>(source.raw()) +
                      i * bytes_of_row(source, source.stride(0)),
                  static_cast<std::size_t>(step));
    }
  }
}

/// Makes room for `needed` rows, keeping the first `length`.
void reserve(Tensor& rows, std::int64_t length, std::int64_t needed, std::int64_t width,
             DType type) {
  const std::int64_t capacity = rows ? rows.dim(0) : 0;
  if (needed <= capacity) return;
  Tensor larger = Tensor::empty({std::max({kFirstCapacity, 2 * capacity, needed}), width}, type);
  if (length > 0) write_rows(larger, 0, rows.slice(0, length));
  rows = larger;
}

const kernels::ByteAttentionKernels& byte_kernels() {
  return kernels::vector_kernels().byte_attention;
}
std::int64_t blocks_for(std::int64_t rows) { return (rows + kByteKeys - 1) / kByteKeys; }
Shape blocks_shape(std::int64_t blocks, std::int64_t heads, std::int64_t width) {
  return {blocks, heads, byte_kernels().bytes(width / heads)};
}

/// Rows [first, end) of k and v to row `at` + theirs of the blocks.
void write_blocks(Tensor& blocks, std::int64_t at, const Tensor& k, const Tensor& v,
                  std::int64_t first, std::int64_t end) {
  const std::int64_t heads = blocks.dim(1), width = k.dim(1) / heads;
  for (std::int64_t i = first; i < end;) {
    const std::int64_t row = (at + i) % kByteKeys, count = std::min(end - i, kByteKeys - row);
    std::uint8_t* block = blocks.data<std::uint8_t>() + (at + i) / kByteKeys * blocks.stride(0);
    for (std::int64_t h = 0; h < heads; ++h, block += blocks.stride(1)) {
      byte_kernels().write(k.data() + i * k.stride(0) + h * width, k.stride(0),
                           v.data() + i * v.stride(0) + h * width, v.stride(0), width, row, count,
                           block);
    }
    i += count;
  }
}

/// The first `blocks` of them in memory of their own, with room for `room`.
Tensor copy_blocks(const Tensor& source, std::int64_t blocks, std::int64_t room) {
  Tensor copy = Tensor::empty({room, source.dim(1), source.dim(2)}, DType::u8);
  std::memcpy(copy.raw(), source.raw(), static_cast<std::size_t>(blocks * source.stride(0)));
  return copy;
}

}  // namespace

double KeyValues::bytes_per_row() const {
  if (bytes) return static_cast<double>(bytes.dim(1) * bytes.dim(2)) / kByteKeys;
  return static_cast<double>(bytes_of_row(k, k.dim(1)) + bytes_of_row(v, v.dim(1)));
}

KeyValues KeyValues::as_rows(Context& ctx) const {
  if (!bytes) return *this;
  KeyValues rows{ctx.empty({length, width}), ctx.empty({length, width}), {}, length, width};
  const std::int64_t heads = bytes.dim(1), own = width / heads;
  ctx.parallel_for(blocks_for(length) * heads, [&](std::int64_t task) {
    const std::int64_t block = task / heads, h = task % heads;
    const std::uint8_t* from =
        bytes.data<std::uint8_t>() + block * bytes.stride(0) + h * bytes.stride(1);
    const std::int64_t end = std::min(length, (block + 1) * kByteKeys);
    for (std::int64_t i = block * kByteKeys; i < end; ++i) {
      byte_kernels().read(from, own, i % kByteKeys, rows.k.data() + i * width + h * own,
                          rows.v.data() + i * width + h * own);
    }
  });
  return rows;
}

KvCache::KvCache(std::int64_t layers, const Types& types)
    : layers_(static_cast<std::size_t>(layers)) {
  assert(types.heads > 0);
  for (Layer& layer : layers_) layer.types_ = types;
}

KeyValues KvCache::Layer::append(const Tensor& k, const Tensor& v) {
  assert(k.rank() == 2 && k.shape() == v.shape());
  const std::int64_t needed = length_ + k.dim(0);
  if (types_.tokens == DType::i8) {
    append_bytes(k, v);
    length_ = needed;
    return {{}, {}, bytes_, length_, k.dim(1)};
  }
  reserve(k_, length_, needed, k.dim(1), types_.tokens);
  reserve(v_, length_, needed, v.dim(1), types_.tokens);
  write_rows(k_, length_, k);
  write_rows(v_, length_, v);
  length_ = needed;
  return {k_.slice(0, length_), v_.slice(0, length_), {}, length_, k.dim(1)};
}

void KvCache::Layer::append_bytes(const Tensor& k, const Tensor& v) {
  const std::int64_t needed = blocks_for(length_ + k.dim(0)), capacity = bytes_ ? bytes_.dim(0) : 0;
  if (capacity == 0) {
    bytes_ = Tensor::empty(blocks_shape(needed, types_.heads, k.dim(1)), DType::u8);
  } else if (needed > capacity) {
    bytes_ = copy_blocks(bytes_, blocks_for(length_), std::max(needed, 2 * capacity));
  }
  write_blocks(bytes_, length_, k, v, 0, k.dim(0));
}

void KvCache::Layer::set_memory(Context& ctx, const Tensor& k, const Tensor& v) {
  memory_ = {k, v, {}, k.dim(0), k.dim(1)};
  if (ctx.tape || types_.memory == DType::f32) return;
  constexpr std::int64_t kRowsPerTask = 64;
  const std::int64_t rows = k.dim(0);
  if (types_.memory == DType::i8) {
    Tensor blocks = ctx.empty(blocks_shape(blocks_for(rows), types_.heads, k.dim(1)), DType::u8);
    in_pieces(ctx, rows, kRowsPerTask, [&](std::int64_t first, std::int64_t end) {
      write_blocks(blocks, 0, k, v, first, end);
    });
    memory_ = {{}, {}, blocks, rows, k.dim(1)};
    return;
  }
  for (Tensor* own : {&memory_.k, &memory_.v}) {
    Tensor rounded = ctx.empty(own->shape(), types_.memory);
    in_pieces(ctx, rows, kRowsPerTask, [&](std::int64_t first, std::int64_t end) {
      write_rows(rounded, first, own->slice(first, end));
    });
    *own = rounded;
  }
}

void KvCache::truncate(std::int64_t length) {
  for (Layer& layer : layers_) layer.length_ = std::min(layer.length_, length);
}

KvCache KvCache::clone() const {
  KvCache copy = *this;
  for (Layer& layer : copy.layers_) {
    if (layer.bytes_)
      layer.bytes_ = copy_blocks(layer.bytes_, blocks_for(layer.length_), layer.bytes_.dim(0));
    for (Tensor* rows : {&layer.k_, &layer.v_}) {
      const Tensor shared = *rows;
      if (!shared) continue;
      *rows = Tensor::empty(shared.shape(), shared.dtype());
      write_rows(*rows, 0, shared.slice(0, layer.length_));
    }
  }
  return copy;
}

void KvCache::Layer::become(const Layer& other, std::int64_t same) {
  assert(same <= length_ && same <= other.length_);
  types_ = other.types_;
  memory_ = other.memory_;
  if (other.bytes_) {
    const std::int64_t first = same / kByteKeys, end = blocks_for(other.length_);
    if (!bytes_ || end > bytes_.dim(0)) {
      bytes_ = copy_blocks(other.bytes_, end, other.bytes_.dim(0));
    } else {
      const std::int64_t block = bytes_.stride(0);
      std::memcpy(bytes_.data<std::uint8_t>() + first * block,
                  other.bytes_.data<std::uint8_t>() + first * block,
                  static_cast<std::size_t>((end - first) * block));
    }
  } else if (other.k_) {
    const std::int64_t width = other.k_.dim(1);
    for (const auto& [to, from] : {std::pair(&k_, &other.k_), std::pair(&v_, &other.v_)}) {
      reserve(*to, same, other.length_, width, from->dtype());
      write_rows(*to, same, from->slice(same, other.length_));
    }
  }
  length_ = other.length_;
}

void KvCache::become(const KvCache& other, std::int64_t same) {
  layers_.resize(other.layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i].become(other.layers_[i], same);
}

}  // namespace tessera
