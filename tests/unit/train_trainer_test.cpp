#include "train/trainer.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iterator>
#include <limits>

#include "core/error.h"
#include "train/autograd.h"
#include "train_curve.h"
#include "unit/core_numbers.h"

namespace tessera::train {
namespace {

namespace fs = std::filesystem;
using tessera::testing::Curve;
using tessera::testing::random_tensor;
using tessera::testing::TemporaryFolder;

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Optimizer, IsAdamW) {
  Tensor matrix = random_tensor({7, 11}, 1), vector = random_tensor({13}, 2);
  const Parameters parameters = {{"matrix", matrix}, {"vector", vector}};
  const OptimizerOptions o{.beta1 = 0.8, .beta2 = 0.9, .epsilon = 1e-3, .weight_decay = 0.1};
  Context ctx;
  for (const auto& [name, start] : parameters) {
    std::vector<double> w, m(static_cast<std::size_t>(start.numel())), v(m.size());
    for (const float x : start.to_vector()) w.push_back(static_cast<double>(x));
    Optimizer alone({{name, start}}, o);
    for (int t = 1; t <= 3; ++t) {
      const Tensor g = random_tensor(start.shape(), 10 + static_cast<std::uint32_t>(t));
      Gradients gradients;
      Tensor to = gradients.sum(ctx, start);
      std::copy_n(g.data(), g.numel(), to.data());
      alone.step(ctx, gradients, 0.05, 0.5);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double d = 0.5 * static_cast<double>(g.data()[i]);
        m[i] = 0.8 * m[i] + 0.2 * d;
        v[i] = 0.9 * v[i] + 0.1 * d * d;
        if (start.rank() == 2) w[i] *= 1 - 0.05 * 0.1;
        w[i] -= 0.05 * (m[i] / (1 - std::pow(0.8, t))) /
                (std::sqrt(v[i] / (1 - std::pow(0.9, t))) + 1e-3);
        ASSERT_NEAR(static_cast<double>(start.data()[i]), w[i], 1e-5) << name << " step " << t;
      }
    }
  }
}

/// Steps of an optimiser with gradients of random numbers.
void steps_of(Optimizer& optimizer, const Tensor& weight, int first, int count) {
  Context ctx;
  for (int t = first; t < first + count; ++t) {
    const Tensor g = random_tensor(weight.shape(), 10 + static_cast<std::uint32_t>(t));
    Gradients gradients;
    Tensor to = gradients.sum(ctx, weight);
    std::copy_n(g.data(), g.numel(), to.data());
    optimizer.step(ctx, gradients, 0.05, 0.5);
  }
}

TEST(Optimizer, RatesGoByName) {
  Tensor slow = random_tensor({4, 5}, 1), still = random_tensor({4, 5}, 1);
  const std::vector<float> before = still.to_vector();
  Tensor fast = slow.clone();
  const auto options = [](double factor) {
    return OptimizerOptions{.kind = OptimizerOptions::Kind::sgd,
                            .momentum = 0,
                            .weight_decay = 0,
                            .rate_factors = {{"*", 1.0}, {"a.*", factor}}};
  };
  Optimizer half({{"a.w", slow}}, options(0.5)),
      whole({{"b.w", fast}},
            {.kind = OptimizerOptions::Kind::sgd, .momentum = 0, .weight_decay = 0}),
      none({{"a.w", still}}, options(0));
  steps_of(half, slow, 1, 1);
  steps_of(whole, fast, 1, 1);
  steps_of(none, still, 1, 1);
  for (std::int64_t i = 0; i < 20; ++i) {
    const float start = before[static_cast<std::size_t>(i)];
    EXPECT_NEAR(fast.data()[i] - start, 2 * (slow.data()[i] - start), 1e-6f);
    EXPECT_EQ(still.data()[i], start);
  }
  EXPECT_THROW(Optimizer({{"b", fast}}, options(1)), ArgumentError);
}

TEST(Optimizer, IsGradientDescentWithMomentum) {
  for (const double momentum : {0.0, 0.7}) {
    const Tensor weight = random_tensor({7, 11}, 1);
    std::vector<double> w, v(77);
    for (const float x : weight.to_vector()) w.push_back(static_cast<double>(x));
    Optimizer optimizer(
        {{"w", weight}},
        {.kind = OptimizerOptions::Kind::sgd, .momentum = momentum, .weight_decay = 0.1});
    for (int t = 0; t < 3; ++t) {
      const auto g = random_tensor(weight.shape(), 10 + static_cast<std::uint32_t>(t)).to_vector();
      for (std::size_t i = 0; i < w.size(); ++i) {
        v[i] = momentum * v[i] + 0.5 * static_cast<double>(g[i]) + 0.1 * w[i];
        w[i] -= 0.05 * v[i];
      }
    }
    steps_of(optimizer, weight, 0, 3);
    for (std::size_t i = 0; i < w.size(); ++i)
      EXPECT_NEAR(static_cast<double>(weight.to_vector()[i]), w[i], 1e-5) << momentum;
  }
}

TEST(Optimizer, AveragesGoAfterTheParameters) {
  const Tensor weight = random_tensor({5}, 1);
  Optimizer optimizer({{"w", weight}}, {.average = 0.75});
  std::vector<float> expected = weight.to_vector();
  for (int t = 0; t < 4; ++t) {
    steps_of(optimizer, weight, t, 1);
    for (std::size_t i = 0; i < 5; ++i)
      expected[i] = 0.75f * expected[i] + 0.25f * weight.to_vector()[i];
  }
  const std::vector<float> last = weight.to_vector();
  optimizer.swap_averages();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(weight.to_vector()[i], expected[i], 1e-6);
  optimizer.swap_averages();
  EXPECT_EQ(weight.to_vector(), last);
}

TEST(Optimizer, GoesOnFromItsState) {
  using Kind = OptimizerOptions::Kind;
  for (const OptimizerOptions& o :
       {OptimizerOptions{.average = 0.9}, OptimizerOptions{.kind = Kind::sgd},
        OptimizerOptions{.kind = Kind::sgd, .momentum = 0, .average = 0.5}}) {
    const Tensor once = random_tensor({6, 3}, 1), again = once.clone();
    Optimizer whole({{"w", once}}, o), before({{"w", again}}, o), after({{"w", again}}, o);
    steps_of(whole, once, 0, 5);
    steps_of(before, again, 0, 2);
    after.restore(Weights::of(before.state()));
    steps_of(after, again, 2, 3);
    EXPECT_EQ(once.to_vector(), again.to_vector());
    whole.swap_averages(), after.swap_averages();
    EXPECT_EQ(once.to_vector(), again.to_vector());
  }
  const Tensor w = random_tensor({2}, 1);
  Optimizer adam({{"w", w}}, {});
  EXPECT_THROW(adam.restore(Weights::of(Optimizer({{"w", w}}, {.kind = Kind::sgd}).state())),
               FormatError);
  EXPECT_THROW(Optimizer({{"w", w}}, {.average = 1}), ArgumentError);
}

TEST(Optimizer, NormOfAllGradients) {
  const Tensor a = random_tensor({300, 700}, 1), b = random_tensor({3}, 2);
  Context ctx;
  Gradients gradients;
  double expected = 0;
  for (const Tensor& t : {a, b}) {
    Tensor to = gradients.sum(ctx, t);
    std::copy_n(t.data(), t.numel(), to.data());
    for (const float x : t.to_vector()) expected += static_cast<double>(x) * static_cast<double>(x);
  }
  EXPECT_NEAR(gradient_norm(ctx, gradients, {{"a", a}, {"b", b}}, 0.5), 0.5 * std::sqrt(expected),
              1e-4);
}

TEST(Schedule, WarmsUpAndDecays) {
  Schedule s{.kind = Schedule::Kind::linear, .peak = 2, .floor = 0.5, .warmup = 4, .steps = 14};
  EXPECT_DOUBLE_EQ(s.rate(0), 0.5);
  EXPECT_DOUBLE_EQ(s.rate(3), 2);
  EXPECT_DOUBLE_EQ(s.rate(4), 2);
  EXPECT_DOUBLE_EQ(s.rate(9), 1.5);
  EXPECT_DOUBLE_EQ(s.rate(100), 1);
  s.kind = Schedule::Kind::cosine;
  EXPECT_DOUBLE_EQ(s.rate(9), 1.5);
  EXPECT_NEAR(s.rate(6), 1 + 0.5 * (1 + std::cos(0.2 * 3.14159265358979)), 1e-9);
  s.kind = Schedule::Kind::constant;
  EXPECT_DOUBLE_EQ(s.rate(13), 2);
}

TEST(Parameters, ByPattern) {
  const Tensor t = Tensor::zeros({1});
  const Parameters all = {{"h.0.attn.bias", t}, {"h.1.mlp.bias", t}, {"h.10.attn.bias", t}};
  EXPECT_EQ(matching(all, {"h.1.*"}).size(), 1u);
  EXPECT_EQ(matching(all, {"*.attn.*"}).size(), 2u);
  EXPECT_EQ(not_matching(all, {"h.0.*", "h.1.*"}).size(), 1u);
  EXPECT_EQ(not_matching(all, {}).size(), 3u);
  EXPECT_THROW(matching(all, {"h.7.*"}), ArgumentError);
}

TEST(Parameters, FirstValues) {
  EXPECT_EQ(initial_value("ln.weight", {3}, 0.02, 1).to_vector(), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(initial_value("ln.bias", {2}, 0.02, 1).to_vector(), (std::vector<float>{0, 0}));
  const auto a = initial_value("a", {100, 100}, 0.02, 1).to_vector();
  EXPECT_EQ(a, initial_value("a", {100, 100}, 0.02, 1).to_vector());
  EXPECT_NE(a, initial_value("b", {100, 100}, 0.02, 1).to_vector());
  EXPECT_NE(a, initial_value("a", {100, 100}, 0.02, 2).to_vector());
  double sum = 0, squares = 0;
  for (const float x : a)
    sum += static_cast<double>(x), squares += static_cast<double>(x) * static_cast<double>(x);
  EXPECT_NEAR(sum / 1e4, 0, 1e-3);
  EXPECT_NEAR(std::sqrt(squares / 1e4), 0.02, 5e-4);
}

/// Trains to the end in `folder`, in a process of its own that is killed in `killed_in` (0: not).
/// Returns how it ended.
int run_apart(const fs::path& folder, std::int64_t killed_in, int threads) {
  const pid_t child = ::fork();
  if (child == 0) {
    const Curve curve;
    TrainerOptions options = curve.options(folder, 2);
    options.checkpoint_every = 4;
    Trainer trainer = curve.trainer(options);
    trainer.describe = [&](const fs::path& to) {
      fs::copy_file(curve.folder / "config.json", to / "config.json",
                    fs::copy_options::overwrite_existing);
    };
    trainer.on_step = [&](const StepReport& r) {
      if (r.step == killed_in) ::kill(::getpid(), SIGKILL);
    };
    Context ctx({.threads = threads});
    trainer.resume();
    trainer.run(ctx);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(Trainer, AKilledRunGoesOnToTheSameBits) {
  const TemporaryFolder whole, cut;
  ASSERT_EQ(run_apart(whole.path, 0, 2), 0);
  for (const std::int64_t step : {2, 7, 20}) {  // before the first checkpoint, and after some
    const int status = run_apart(cut.path, step, 1);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  ASSERT_EQ(run_apart(cut.path, 0, 2), 0);
  for (const char* file : {"model.safetensors", "config.json", "checkpoint-50/model.safetensors",
                           "checkpoint-50/optimizer.safetensors"})
    EXPECT_EQ(bytes_of(whole.path / file), bytes_of(cut.path / file)) << file;
  std::ifstream log(cut.path / "log.jsonl");
  std::int64_t steps = 0;
  for (std::string line; std::getline(log, line);)
    EXPECT_EQ(Config::parse(line, "log").integer("step"), ++steps);
  EXPECT_EQ(steps, 50);
  EXPECT_FALSE(fs::exists(cut.path / "checkpoint-44")) << "two checkpoints are kept";
  EXPECT_TRUE(fs::exists(cut.path / "checkpoint-48"));
}

TEST(Trainer, StopsWithACheckpoint) {
  const Curve curve;
  const TemporaryFolder folder;
  Trainer trainer = curve.trainer(folder.path);
  trainer.stop = [&] { return trainer.step() == 3; };
  Context ctx;
  EXPECT_FALSE(trainer.run(ctx));
  EXPECT_EQ(newest_checkpoint(folder.path), folder.path / "checkpoint-3");
  EXPECT_FALSE(fs::exists(folder.path / "model.safetensors"));
}

TEST(Trainer, NamesStepAndParameterOfWhatIsNotFinite) {
  const Curve curve;
  const TemporaryFolder folder;
  TrainerOptions options = curve.options(folder.path, 1);
  options.checkpoint_every = 1;
  Trainer trainer = curve.trainer(options);
  trainer.on_step = [&](const StepReport& r) {
    if (r.step == 2) {
      Tensor weight = matching(curve.parameters, {"*h.1.attn.c_attn.weight"}).front().tensor;
      weight.data()[5] = std::numeric_limits<float>::quiet_NaN();
    }
  };
  Context ctx;
  try {
    trainer.stop = [&] { return false; };
    trainer.run(ctx);
    FAIL() << "it went on";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("step 3"), what.npos) << what;
    EXPECT_NE(what.find("transformer."), what.npos) << what;
    EXPECT_NE(what.find("step 2 is kept"), what.npos) << what;
  }
  EXPECT_EQ(newest_checkpoint(folder.path), folder.path / "checkpoint-2");
}

TEST(Trainer, AFullDiskLeavesTheOldCheckpoint) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    const Curve curve;
    TrainerOptions options = curve.options(folder.path, 1);
    options.checkpoint_every = 2;
    Trainer trainer = curve.trainer(options);
    trainer.on_step = [&](const StepReport& r) {
      if (r.step == 3) {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit small{20000, 20000};
        ::setrlimit(RLIMIT_FSIZE, &small);
      }
    };
    Context ctx;
    try {
      trainer.run(ctx);
    } catch (const IoError&) {
      ::_exit(7);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(newest_checkpoint(folder.path), folder.path / "checkpoint-2");
  const Curve curve;
  Trainer trainer = curve.trainer(folder.path);
  EXPECT_TRUE(trainer.resume());
  EXPECT_EQ(trainer.step(), 2);
  for (const auto& entry : fs::directory_iterator(folder.path))
    EXPECT_EQ(entry.path().string().find("partial"), std::string::npos) << entry.path();
}

TEST(Trainer, AStateOfAnotherModelIsRefused) {
  const Curve curve;
  const TemporaryFolder folder;
  TrainerOptions options = curve.options(folder.path, 1);
  options.schedule.steps = 1;
  Context ctx;
  Trainer trainer = curve.trainer(options);
  ASSERT_TRUE(trainer.run(ctx));
  const Parameters other = {{"x", Tensor::zeros({2, 2})}};
  Trainer wrong(other, other, options);
  EXPECT_THROW(wrong.resume(), FormatError);
}

}  // namespace
}  // namespace tessera::train
