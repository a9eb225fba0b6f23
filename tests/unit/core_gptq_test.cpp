#include "core/gptq.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/input_moments.h"
#include "core/kernels/quantized.h"
#include "core/layers.h"
#include "core/quantize.h"

namespace tessera {
namespace {

Tensor numbers(const Shape& shape, std::uint32_t seed) {
  Tensor t = Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    seed = seed * 1664525u + 1013904223u;
    t.data()[i] = static_cast<float>(seed >> 8) / 8388608.0f - 1;
  }
  return t;
}

/// Sums of x^T x for `rows` inputs that are mixed of a third as many.
Tensor correlated(std::int64_t rows, std::int64_t columns) {
  const Tensor few = numbers({rows, columns / 3}, 3), mix = numbers({columns / 3, columns}, 5);
  Tensor moments = Tensor::zeros({columns, columns});
  std::vector<double> x(static_cast<std::size_t>(columns));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (std::int64_t k = 0; k < columns / 3; ++k)
        sum += static_cast<double>(few.data()[r * (columns / 3) + k] * mix.data()[k * columns + c]);
      x[static_cast<std::size_t>(c)] = sum;
    }
    for (std::int64_t i = 0; i < moments.numel(); ++i)
      moments.data()[i] += static_cast<float>(x[static_cast<std::size_t>(i / columns)] *
                                              x[static_cast<std::size_t>(i % columns)]);
  }
  return moments;
}

/// The sum over rows of (w - q) moments (w - q)^T.
double error(const Tensor& weight, const RoundedMatrix& rounded, const Tensor& moments) {
  const Tensor q = rounded.multiplied_out();
  const std::int64_t n = weight.dim(1);
  double sum = 0;
  for (std::int64_t row = 0; row < weight.dim(0); ++row) {
    const auto lost = [&](std::int64_t c) {
      return static_cast<double>(weight.data()[row * n + c] - q.data()[row * n + c]);
    };
    for (std::int64_t i = 0; i < moments.numel(); ++i)
      sum += lost(i / n) * static_cast<double>(moments.data()[i]) * lost(i % n);
  }
  return sum;
}

void expect_equal(const RoundedMatrix& a, const RoundedMatrix& b) {
  EXPECT_EQ(a.numbers.to_vector(), b.numbers.to_vector());
  EXPECT_EQ(a.scales.to_vector(), b.scales.to_vector());
  ASSERT_EQ(a.bits, b.bits);
  if (a.bits != 4) return;
  EXPECT_EQ(a.zeros.to_vector(), b.zeros.to_vector());
}

constexpr int kBits[] = {4, 8};

TEST(Gptq, LosesLessThanRoundingWhereInputsAreCorrelated) {
  Context ctx({.threads = 2});
  const Tensor weight = numbers({17, 224}, 1), moments = correlated(300, 224);
  for (const int bits : kBits) {
    for (const bool ordered : {true, false}) {
      const Gptq gptq(moments, columns_per_scale(bits), ordered);
      EXPECT_LT(error(weight, rounded(ctx, "w", weight, bits, gptq), moments),
                0.3 * error(weight, rounded("w", weight, bits), moments))
          << bits << (ordered ? " ordered" : "");
    }
  }
}

// Column by column and number by number: what the blocks and products are to give.
TEST(Gptq, RoundsEachColumnWithWhatAllBeforeItLost) {
  Context ctx({.threads = 1});
  const std::int64_t rows = 5, columns = 192;
  const Tensor weight = numbers({rows, columns}, 1);
  const Gptq gptq(correlated(400, columns), columns_per_scale(4));
  const RoundedMatrix got = rounded(ctx, "w", weight, 4, gptq);
  const Tensor q = got.multiplied_out();
  const auto column = [&](std::int64_t i) { return gptq.order()[static_cast<std::size_t>(i)]; };
  for (std::int64_t row = 0; row < rows; ++row) {
    // Column i with what the first `count` lost.
    const auto wanted = [&](std::int64_t i, std::int64_t count) {
      double sum = static_cast<double>(weight.data()[row * columns + column(i)]);
      for (std::int64_t k = 0; k < count; ++k) {
        const std::int64_t at = row * columns + column(k);
        sum += static_cast<double>(weight.data()[at] - q.data()[at]) *
               static_cast<double>(gptq.feedback().data()[i * columns + k]);
      }
      return static_cast<float>(sum);
    };
    for (std::int64_t i = 0; i < columns; ++i) {
      const std::int64_t group = column(i) / kernels::kGroup,
                         at = row * (columns / kernels::kGroup) + group;
      const auto zero = static_cast<float>(got.zeros.data<std::uint8_t>()[at]);
      const float scale = got.scales.data()[at];
      if (i % kernels::kGroup == 0) {
        float x[kernels::kGroup];
        std::uint8_t unused[kernels::kGroup];
        for (std::int64_t c = 0; c < kernels::kGroup; ++c) x[c] = wanted(i + c, i);
        EXPECT_NEAR(kernels::quantize4(x, unused).scale, scale, 0.02f * scale);
      }
      const float number = std::clamp(wanted(i, i) / scale + zero, 0.0f, 15.0f);
      EXPECT_NEAR(got.numbers.data<std::uint8_t>()[row * columns + column(i)], number, 0.501);
    }
  }
}

TEST(Gptq, IndependentInputsLeaveEachNumberToItself) {
  Context ctx({.threads = 1});
  Tensor moments = Tensor::zeros({64, 64});
  for (std::int64_t i = 0; i < 64; ++i)
    if (i != 7) moments.data()[i * 65] = static_cast<float>(1 + i % 5);
  const Tensor weight = numbers({3, 64}, 1);
  for (const int bits : kBits) {
    const RoundedMatrix nearest = rounded("w", weight, bits);
    const Gptq some(moments, columns_per_scale(bits)), none(Tensor::zeros({64, 64}), 0);
    if (bits == 8) {
      expect_equal(rounded(ctx, "w", weight, 8, some), nearest);
      expect_equal(rounded(ctx, "w", weight, 8, none), nearest);
    } else {  // in other order, a group's scale may differ in its last bits
      EXPECT_LT(error(weight, rounded(ctx, "w", weight, 4, some), moments),
                1.02 * error(weight, nearest, moments));
    }
  }
}

TEST(Gptq, TheSameForAnyNumberOfThreads) {
  const Tensor weight = numbers({67, 160}, 1), moments = correlated(200, 160);
  Context one({.threads = 1}), three({.threads = 3});
  for (const int bits : kBits) {
    const Gptq gptq(moments, columns_per_scale(bits));
    expect_equal(rounded(one, "w", weight, bits, gptq), rounded(three, "w", weight, bits, gptq));
  }
}

TEST(Gptq, RefusesWhatIsNoSumOfSquares) {
  Context ctx({.threads = 1});
  EXPECT_THROW(Gptq(Tensor::zeros({3, 4}), 0), ShapeError);
  EXPECT_THROW(Gptq(Tensor::zeros({48, 48}), 32), ShapeError);
  Tensor bad = correlated(10, 32);
  bad.data()[33] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(Gptq(bad, 0), FormatError);
  bad.data()[33] = -1;
  EXPECT_THROW(Gptq(bad, 0), FormatError);
  Tensor indefinite = Tensor::zeros({2, 2});
  indefinite.data()[0] = indefinite.data()[3] = 1;
  indefinite.data()[1] = indefinite.data()[2] = 1e9f;
  EXPECT_THROW(Gptq(indefinite, 0), FormatError);
  const Gptq gptq(correlated(40, 32), 32);
  EXPECT_THROW(rounded(ctx, "w", numbers({2, 64}, 1), 4, gptq), ShapeError);
  Tensor infinite = numbers({2, 32}, 1);
  infinite.data()[40] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(rounded(ctx, "w", infinite, 4, gptq), FormatError);
}

class Recorder : public ::testing::Test {
 protected:
  Recorder() {
    save_safetensors(file_, {{"a.weight", numbers({3, 20}, 1)},
                             {"b.weight", numbers({2, 20}, 2)},
                             {"c.weight", numbers({2, 6}, 2)}});
    const Weights w = Weights::open(file_);
    ab_ = Linear::concat({{w.at("a"), 3, Linear::Bias::none}, {w.at("b"), 2, Linear::Bias::none}},
                         20);
    c_ = Linear(w.at("c"), 6, 2, Linear::Bias::none);
  }
  ~Recorder() override { std::filesystem::remove(file_); }

  const std::filesystem::path file_ =
      std::filesystem::temp_directory_path() / ("tessera-recorder-" + std::to_string(::getpid()));
  Context ctx_{{.threads = 2}};
  Linear ab_, c_;
};

TEST_F(Recorder, SumsWhatLayersAreGiven) {
  const Tensor wide = numbers({1300, 24}, 9), x = wide.columns(2, 22);
  std::vector<InputMoments> seen;
  {
    InputRecorder recorder(
        ctx_, [](const auto&) { return true; }, 1 << 20);
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1200}, {1200, 1300}})
      ab_(ctx_, x.slice(begin, end));
    c_(ctx_, x.columns(0, 6));
    Linear(numbers({3, 20}, 1), {})(ctx_, x);  // in no checkpoint
    EXPECT_FALSE(recorder.lacked_room());
    seen = recorder.take();
  }
  ab_(ctx_, x);  // nobody looks any more
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].matrices, (std::vector<std::string>{"a.weight", "b.weight"}));
  EXPECT_EQ(seen[1].matrices, std::vector<std::string>{"c.weight"});
  EXPECT_EQ(seen[0].rows, 1300);
  ASSERT_EQ(seen[0].sum.shape(), (Shape{20, 20}));
  for (std::int64_t i = 0; i < 20; ++i) {
    for (std::int64_t j = 0; j < 20; ++j) {
      double sum = 0;
      for (std::int64_t r = 0; r < 1300; ++r)
        sum += static_cast<double>(wide.data()[r * 24 + 2 + i]) *
               static_cast<double>(wide.data()[r * 24 + 2 + j]);
      EXPECT_NEAR(seen[0].sum.data()[i * 20 + j], sum, 1e-3);
      EXPECT_EQ(seen[0].sum.data()[i * 20 + j], seen[0].sum.data()[j * 20 + i]);
    }
  }
}

TEST_F(Recorder, HoldsNoMoreThanThereIsRoomFor) {
  const Tensor x = numbers({5, 20}, 9);
  InputRecorder recorder(
      ctx_, [](const auto&) { return true; }, 1);
  for (int i = 0; i < 2; ++i) {
    ab_(ctx_, x);
    c_(ctx_, x.columns(0, 6));
  }
  EXPECT_TRUE(recorder.lacked_room());
  const auto seen = recorder.take();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].matrices.front(), "a.weight");
  EXPECT_EQ(seen[0].rows, 10);
}

TEST_F(Recorder, LeavesOutWhatIsNotWanted) {
  InputRecorder recorder(
      ctx_, [](const auto& matrices) { return matrices.front() == "c.weight"; }, 1);
  const Tensor x = numbers({5, 20}, 9);
  ab_(ctx_, x);
  c_(ctx_, x.columns(0, 6));
  EXPECT_FALSE(recorder.lacked_room());
  const auto seen = recorder.take();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].matrices.front(), "c.weight");
}

}  // namespace
}  // namespace tessera
