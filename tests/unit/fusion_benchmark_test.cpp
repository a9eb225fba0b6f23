#include "fusion/benchmark.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace tessera::fusion {
namespace {

TEST(Benchmark, MeasuresAllThatTheDefaultModelDoes) {
  const auto model = Model::open(std::string(TESSERA_SOURCE_DIR) + "/models/default");
  Context ctx({.threads = 2});
  const auto all = benchmark(ctx, *model, {.repeat = 3, .prefill = 1000, .decode = 2});
  std::vector<std::string> works;
  for (const Measurement& m : all) {
    works.push_back(m.work);
    EXPECT_EQ(m.seconds.size(), 3u) << m.work;
    EXPECT_GT(m.median(), 0) << m.work;
    EXPECT_EQ(m.stages.cost.calls, 3) << m.work;
    EXPECT_FALSE(m.stages.stages.empty()) << m.work;
  }
  const std::vector<std::string> expected{
      "log-mel", "encode sound", "preprocess image", "encode image", "memory", "prefill", "decode"};
  EXPECT_EQ(works, expected);
  EXPECT_EQ(all[5].amount, static_cast<double>(model->decoder->max_positions() - 2));
  EXPECT_EQ(ctx.profile, nullptr);
}

TEST(Benchmark, MedianOfEvenAndOddCounts) {
  Measurement m;
  m.seconds = {3, 1, 2};
  EXPECT_EQ(m.median(), 2);
  m.seconds = {4, 1, 2, 3};
  EXPECT_EQ(m.median(), 2.5);
}

TEST(Benchmark, RefusesNothingToDo) {
  Context ctx({.threads = 1});
  EXPECT_THROW(benchmark(ctx, Model(), {.repeat = 0}), ArgumentError);
}

}  // namespace
}  // namespace tessera::fusion
