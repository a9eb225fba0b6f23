#pragma once
#include <string>
#include <vector>

#include "core/context.h"

namespace tessera {

/// What the machine can do at best, measured on all threads of a context.
struct MachinePeaks {
  struct Arithmetic {
    std::string format, instruction;
    double gflops;  ///< 10^9 operations a second, a multiply-add counted as two
  };
  std::vector<Arithmetic> arithmetic;
  double read_gb_per_s = 0;  ///< from memory, beyond all caches
  /// GFLOP/s of a format, 0 where it was not measured.
  double gflops(const std::string& format) const;
};

/// Takes about a second, and 256 MiB of memory.
MachinePeaks measure_peaks(Context& ctx);

/// "AMD EPYC ...", as the system calls it; empty where it does not say.
std::string processor_name();
/// The instruction set that the kernels use: "generic", "avx2", "avx_vnni", "avx512",
/// "avx512_vnni", "avx512_bf16".
std::string kernel_name();

}  // namespace tessera
