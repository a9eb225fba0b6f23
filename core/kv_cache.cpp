#include "core/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/kernels/vector.h"

namespace tessera {
namespace {

constexpr std::int64_t kFirstCapacity = 64;

std::int64_t bytes_of_row(const Tensor& rows, std::int64_t count) {
  return count * (rows.dtype() == DType::bf16 ? 2 : 4);
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

}  // namespace

KvCache::KvCache(std::int64_t layers, DType type) : layers_(static_cast<std::size_t>(layers)) {
  assert(type == DType::f32 || type == DType::bf16);
  for (Layer& layer : layers_) layer.type_ = type;
}

KvCache::Layer::View KvCache::Layer::append(const Tensor& k, const Tensor& v) {
  assert(k.rank() == 2 && k.shape() == v.shape());
  const std::int64_t needed = length_ + k.dim(0);
  reserve(k_, length_, needed, k.dim(1), type_);
  reserve(v_, length_, needed, v.dim(1), type_);
  write_rows(k_, length_, k);
  write_rows(v_, length_, v);
  length_ = needed;
  return {k_.slice(0, length_), v_.slice(0, length_)};
}

void KvCache::Layer::set_memory(const Tensor& k, const Tensor& v) {
  memory_ = {k, v};
  if (type_ == DType::f32) return;
  for (Tensor* rows : {&memory_.k, &memory_.v}) {
    Tensor rounded = Tensor::empty(rows->shape(), type_);
    write_rows(rounded, 0, *rows);
    *rows = rounded;
  }
}

void KvCache::truncate(std::int64_t length) {
  for (Layer& layer : layers_) layer.length_ = std::min(layer.length_, length);
}

KvCache KvCache::clone() const {
  KvCache copy = *this;
  for (Layer& layer : copy.layers_) {
    for (Tensor* rows : {&layer.k_, &layer.v_}) {
      const Tensor shared = *rows;
      if (!shared) continue;
      *rows = Tensor::empty(shared.shape(), layer.type_);
      write_rows(*rows, 0, shared.slice(0, layer.length_));
    }
  }
  return copy;
}

}  // namespace tessera
