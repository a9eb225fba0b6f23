// 50 steps of training a tiny GPT-2, beside PyTorch.
#include "train_curve.h"

namespace tessera {
namespace {

void compare(std::int64_t accumulation, int threads) {
  const testing::Curve curve;
  const testing::TemporaryFolder folder;
  const std::vector<double> losses = curve.golden.numbers("losses"),
                            rates = curve.golden.numbers("rates"),
                            norms = curve.golden.numbers("gradient_norms");
  std::size_t steps = 0;
  train::Trainer trainer = curve.trainer(folder.path, accumulation);
  trainer.on_step = [&](const train::StepReport& r) {
    ASSERT_LT(steps, losses.size());
    EXPECT_NEAR(r.loss, losses[steps], 1e-3) << "step " << steps;
    EXPECT_NEAR(r.rate, rates[steps], 1e-9) << "step " << steps;
    EXPECT_NEAR(r.gradient_norm, norms[steps], 1e-2 * norms[steps]) << "step " << steps;
    ++steps;
  };
  Context ctx({.threads = threads});
  EXPECT_TRUE(trainer.run(ctx));
  EXPECT_EQ(steps, 50u);
}

TEST(TrainingCurve, IsThatOfPyTorch) { compare(1, 2); }

TEST(TrainingCurve, IsTheSameInTwoBatchesAStep) { compare(2, 1); }

}  // namespace
}  // namespace tessera
