#include "core/gptq.h"

#include <unistd.h>

#include "core/input_moments.h"
#include "core/layers.h"
#include "core/quantize.h"
#include "golden/fixture.h"

namespace tessera {
namespace {

class GptqGolden : public ::testing::Test {
 protected:
  /// As a layer called "fc" sees them, a few rows at a time.
  Tensor moments() {
    const std::filesystem::path file =
        std::filesystem::temp_directory_path() / ("tessera-gptq-" + std::to_string(::getpid()));
    save_safetensors(file, {{"fc.weight", weight}});
    const Linear fc(Weights::open(file).at("fc"), 64, 6, Linear::Bias::none);
    std::filesystem::remove(file);
    InputRecorder recorder(
        ctx, [](const auto&) { return true; }, 0);
    for (std::int64_t i = 0; i < 40; i += 8) fc(ctx, x.slice(i, i + 8));
    const auto seen = recorder.take();
    EXPECT_EQ(seen.size(), 1u);
    EXPECT_EQ(seen.front().matrices, std::vector<std::string>{"fc.weight"});
    EXPECT_EQ(seen.front().rows, 40);
    return seen.front().sum;
  }
  /// |x (w - q)^T|^2
  double error(const Tensor& q) {
    Tensor lost = weight.clone();
    for (std::int64_t i = 0; i < lost.numel(); ++i) lost.data()[i] -= q.data()[i];
    double sum = 0;
    for (const float y : Linear(lost, {})(ctx, x).to_vector())
      sum += static_cast<double>(y) * static_cast<double>(y);
    return sum;
  }

  Context ctx{{.threads = 1}};
  const Weights data =
      Weights::open(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/gptq.safetensors");
  const Tensor x = data.get("x", {40, 64}), weight = data.get("weight", {6, 64});
};

TEST_F(GptqGolden, EightBitsAreThoseOfThePaper) {
  const RoundedMatrix got = rounded(ctx, "fc.weight", weight, 8, Gptq(moments(), 0));
  EXPECT_TRUE(golden::close_to(got.scales, data.get("scales"), 1e-7));
  EXPECT_EQ(got.numbers.to_vector(), data.get("numbers").to_vector());
  const Tensor errors = data.get("errors", {2});
  EXPECT_NEAR(error(rounded("fc.weight", weight, 8).multiplied_out()), errors.data()[0],
              1e-3 * errors.data()[0]);
  EXPECT_NEAR(error(got.multiplied_out()), errors.data()[1], 1e-3 * errors.data()[1]);
}

TEST_F(GptqGolden, ErrorsAreFedBackAsInThePaper) {
  const Gptq gptq(moments(), columns_per_scale(4));
  EXPECT_TRUE(golden::close_to(gptq.feedback(), data.get("feedback"), 2e-4));
}

TEST_F(GptqGolden, FourBitsLoseLess) {
  const Gptq gptq(moments(), columns_per_scale(4));
  const double nearest = error(rounded("fc.weight", weight, 4).multiplied_out()),
               calibrated = error(rounded(ctx, "fc.weight", weight, 4, gptq).multiplied_out());
  EXPECT_LT(calibrated, 0.2 * nearest);
}

}  // namespace
}  // namespace tessera
