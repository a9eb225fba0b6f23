#pragma once
#include <cstdint>
#include <random>

namespace tessera {

/// Random numbers that are the same on every machine (the standard library's distributions are
/// not).
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// In [0, 1), with 53 bits.
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

}  // namespace tessera
