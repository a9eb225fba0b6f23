#pragma once
#include <cstdint>

// Which numbers dropout keeps: a function of (stream, place) alone, so that no mask is stored.
namespace tessera::kernels {

/// Dropout of numbers whose places follow each other.
struct Dropout {
  std::uint64_t stream = 0;  // of the first place
  std::uint64_t least = 0;   // where fewer are drawn (of 2^53), the number is dropped; 0: none is
  float scale = 1;           // of what is kept
};

/// A share p, from a place of a stream on.
Dropout dropout_of(std::uint64_t stream, float p, std::int64_t place);

namespace {  // a copy in each file, for each is compiled for another machine

/// A well-mixed number of its argument (Steele, Lea and Flood 2014).
inline __attribute__((always_inline)) std::uint64_t mixed(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}
/// What a number is multiplied with.
inline __attribute__((always_inline)) float factor_at(const Dropout& d, std::int64_t place) {
  return mixed(d.stream + static_cast<std::uint64_t>(place)) >> 11 < d.least ? 0.0f : d.scale;
}

}  // namespace
}  // namespace tessera::kernels
