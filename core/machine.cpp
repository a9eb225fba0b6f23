#include "core/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>

#include "core/kernels/peak.h"
#include "core/kernels/vector.h"
#include "core/profile.h"

namespace tessera {
namespace {

constexpr int kTries = 7;

/// Least seconds of several tries.
template <class Work>
double fastest(Work work) {
  double best = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

double measure(Context& ctx, const kernels::PeakLoop& loop) {
  constexpr std::int64_t kRounds = 2000000;
  std::atomic<double> operations{0};
  const double seconds = fastest([&] {
    ctx.parallel_for(ctx.threads(), [&](std::int64_t) { operations = loop.run(kRounds); });
  });
  return operations * ctx.threads() / seconds / 1e9;
}

double measure_reading(Context& ctx) {
  constexpr std::int64_t kBytes = std::int64_t{256} << 20, kPieces = 64;
  Tensor data = Tensor::empty({kBytes}, DType::u8);
  std::fill_n(static_cast<std::uint8_t*>(data.raw()), kBytes, std::uint8_t{1});
  std::atomic<std::uint64_t> sink{0};
  const double seconds = fastest([&] {
    ctx.parallel_for(kPieces, [&](std::int64_t i) {
      const auto* words = static_cast<const std::uint64_t*>(data.raw());
      sink ^= kernels::read_through(words + i * (kBytes / kPieces / 8), kBytes / kPieces);
    });
  });
  return static_cast<double>(kBytes) / seconds / 1e9;
}

}  // namespace

double MachinePeaks::gflops(const std::string& format) const {
  const auto found = std::ranges::find(arithmetic, format, &Arithmetic::format);
  return found == arithmetic.end() ? 0 : found->gflops;
}

MachinePeaks measure_peaks(Context& ctx) {
  MachinePeaks peaks;
  for (const kernels::PeakLoop& loop : kernels::peak_loops())
    peaks.arithmetic.push_back({loop.format, loop.instruction, measure(ctx, loop)});
  peaks.read_gb_per_s = measure_reading(ctx);
  return peaks;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) {
      const auto at = line.find(": ");
      return at == line.npos ? "" : line.substr(at + 2);
    }
  }
  return "";
}

std::string kernel_name() { return kernels::vector_kernels().name; }

}  // namespace tessera
