#include "core/machine.h"

#include <gtest/gtest.h>

#include "core/kernels/peak.h"

namespace tessera {
namespace {

TEST(Machine, EveryFormatHasAPeak) {
  Context ctx({.threads = 1});
  const MachinePeaks peaks = measure_peaks(ctx);
  ASSERT_FALSE(peaks.arithmetic.empty());
  EXPECT_EQ(peaks.arithmetic.front().format, "f32");
  for (const auto& a : peaks.arithmetic) EXPECT_GT(a.gflops, 0.1) << a.format;
  EXPECT_GT(peaks.read_gb_per_s, 0.1);
  EXPECT_EQ(peaks.gflops("f32"), peaks.arithmetic.front().gflops);
  EXPECT_EQ(peaks.gflops("f8"), 0);
}

TEST(Machine, LoopsCountWhatTheyDo) {
  for (const kernels::PeakLoop& loop : kernels::peak_loops()) {
    const double once = loop.run(10);
    EXPECT_GT(once, 0) << loop.instruction;
    EXPECT_EQ(loop.run(30), 3 * once) << loop.instruction;
  }
}

TEST(Machine, ReadsEveryWord) {
  std::vector<std::uint64_t> words(64);
  const auto bytes = static_cast<std::int64_t>(8 * words.size());
  EXPECT_EQ(kernels::read_through(words.data(), bytes), 0u);
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = i + 1;
    EXPECT_EQ(kernels::read_through(words.data(), bytes), i + 1);
    words[i] = 0;
  }
}

}  // namespace
}  // namespace tessera
