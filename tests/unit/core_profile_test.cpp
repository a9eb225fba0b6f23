#include "core/profile.h"

#include <gtest/gtest.h>

#include "core/layers.h"

namespace tessera {
namespace {

TEST(Profile, CountsWhatALinearLayerDoes) {
  Context ctx({.threads = 1});
  Profile profile;
  ctx.profile = &profile;
  const Linear linear(Tensor::zeros({7, 5}), {});
  {
    const PhaseScope phase(ctx, "encode");
    linear(ctx, Tensor::zeros({3, 5}));
    linear(ctx, Tensor::zeros({2, 5}));
  }
  ASSERT_EQ(profile.phases().size(), 1u);
  const Profile::Phase& phase = profile.phases().front();
  EXPECT_EQ(phase.name, "encode");
  EXPECT_EQ(phase.cost.calls, 1);
  EXPECT_EQ(phase.cost.operations, 2 * 5 * 7 * 5);
  ASSERT_EQ(phase.stages.size(), 1u);
  EXPECT_EQ(phase.stages.front().name, "linear 5 > 7");
  EXPECT_EQ(phase.stages.front().cost.calls, 2);
  EXPECT_EQ(phase.stages.front().cost.bytes, 2.0 * static_cast<double>(linear.bytes()));
  EXPECT_GT(phase.stages.front().cost.seconds, 0);
  EXPECT_LE(phase.stages.front().cost.seconds, phase.cost.seconds);
}

TEST(Profile, AStageInsideOfAStageIsPartOfIt) {
  Context ctx({.threads = 1});
  Profile profile;
  ctx.profile = &profile;
  {
    const StageScope outer(ctx, "outer", {.operations = 10});
    const StageScope inner(ctx, "inner", {.operations = 1});
  }
  const StageScope after(ctx, "after");
  ASSERT_EQ(profile.phases().size(), 1u);  // of no name
  EXPECT_EQ(profile.phases()[0].stages.size(), 1u);
  EXPECT_EQ(profile.phases()[0].stages[0].name, "outer");
  EXPECT_EQ(profile.phases()[0].cost.operations, 10);
}

TEST(Profile, APhaseInsideOfAPhaseSuspendsIt) {
  Context ctx({.threads = 1});
  Profile profile;
  ctx.profile = &profile;
  const auto begin = std::chrono::steady_clock::now();
  {
    const PhaseScope outer(ctx, "outer");
    const PhaseScope inner(ctx, "inner");
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  ASSERT_EQ(profile.phases().size(), 2u);
  EXPECT_EQ(profile.phases()[0].name, "outer");
  EXPECT_LE(profile.phases()[0].cost.seconds + profile.phases()[1].cost.seconds, took.count());
}

TEST(Profile, NobodyAskedNothingHappens) {
  Context ctx({.threads = 1});
  const PhaseScope phase(ctx, "phase");
  const StageScope stage(ctx, "stage");
  EXPECT_EQ(ctx.profile, nullptr);
}

}  // namespace
}  // namespace tessera
