#pragma once
#include <cstdint>
#include <vector>

namespace tessera::kernels {

/// What this processor can do with nothing in its way: loops of independent multiply-adds in
/// registers, in each number format that a kernel of ours can multiply in. The yardstick of
/// `tessera bench`.
struct PeakLoop {
  const char* format;       ///< "f32", "bf16", "int8"
  const char* instruction;  ///< "vfmadd (AVX2)", ...
  /// Runs `rounds` rounds; returns the operations done, a multiply-add counted as two.
  double (*run)(std::int64_t rounds);
};

/// The best loop of each format on this machine (under TESSERA_ISA).
std::vector<PeakLoop> peak_loops();

/// Reads `bytes` once, as fast as they come; returns a number that depends on all of them.
std::uint64_t read_through(const std::uint64_t* data, std::int64_t bytes);

}  // namespace tessera::kernels
