#include "core/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace tessera {
namespace {

constexpr std::int64_t kFirstCapacity = 64;

/// Makes room for `needed` rows, keeping the first `length`.
void reserve(Tensor& rows, std::int64_t length, std::int64_t needed, std::int64_t width) {
  const std::int64_t capacity = rows ? rows.dim(0) : 0;
  if (needed <= capacity) return;
  Tensor larger = Tensor::empty({std::max({kFirstCapacity, 2 * capacity, needed}), width});
  if (length > 0) {
    std::memcpy(larger.data(), rows.data(),
                static_cast<std::size_t>(length * width) * sizeof(float));
  }
  rows = larger;
}

void write_rows(Tensor& rows, std::int64_t at, const Tensor& source) {
  const std::int64_t width = rows.dim(1);
  for (std::int64_t i = 0; i < source.dim(0); ++i) {
    std::memcpy(rows.data() + (at + i) * width, source.data() + i * source.stride(0),
                static_cast<std::size_t>(width) * sizeof(float));
  }
}

}  // namespace

KvCache::Layer::View KvCache::Layer::append(const Tensor& k, const Tensor& v) {
  assert(k.rank() == 2 && k.shape() == v.shape());
  const std::int64_t needed = length_ + k.dim(0);
  reserve(k_, length_, needed, k.dim(1));
  reserve(v_, length_, needed, v.dim(1));
  write_rows(k_, length_, k);
  write_rows(v_, length_, v);
  length_ = needed;
  return {k_.slice(0, length_), v_.slice(0, length_)};
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
      *rows = Tensor::empty(shared.shape());
      write_rows(*rows, 0, shared.slice(0, layer.length_));
    }
  }
  return copy;
}

}  // namespace tessera
