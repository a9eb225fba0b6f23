#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace tessera::kernels {

/// A weight matrix [n, k] as a checkpoint holds it.
struct StoredMatrix {
  /// Floats of any type or i8, [n, k]; or i32 [n, ceil(k/8)] where `bits` is 4: eight numbers a
  /// word, the lowest bits first, 8 added to each.
  Tensor weight;
  Tensor scales;             // [n, 1] f32 for i8, [n, k/group] f32 for 4 bits; empty for floats
  Tensor zeros;              // 4 bits: [n, k/group] u8, as stored with 8 added; empty: 8
  int bits = 0;              // 4, else 0
  std::int64_t columns = 0;  // k where bits is 4
  std::string name = "a weight matrix";  // for messages

  std::int64_t n() const { return weight.dim(0); }
  std::int64_t k() const { return bits == 4 ? columns : weight.dim(1); }
  /// Numbers of a row that share a scale.
  std::int64_t group() const { return scales ? k() / scales.dim(1) : k(); }
  /// With 4 bits: row i as stored, and the zero point of one of its groups.
  void nibbles(std::int64_t i, std::uint8_t* to) const;
  std::uint8_t zero(std::int64_t i, std::int64_t g) const;
  /// Row i, multiplied out.
  void row(std::int64_t i, float* to) const;
};

/// Several matrices of the same k, one below the other.
struct StackedMatrix {
  std::vector<StoredMatrix> parts;
  std::int64_t n() const;
  std::int64_t k() const { return parts.front().k(); }
  /// The part that holds row i, and its row there.
  std::pair<const StoredMatrix*, std::int64_t> find(std::int64_t i) const;
  void row(std::int64_t i, float* to) const;
};

}  // namespace tessera::kernels
