#include "fusion/quantize.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include "core/error.h"
#include "core/layers.h"
#include "core/quantize.h"
#include "fusion/session.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

class Quantize : public ::testing::Test {
 protected:
  ~Quantize() override { fs::remove_all(out_); }
  static fs::path family(const char* name) {
    return fs::path(TESSERA_SOURCE_DIR) / "tests/data/families" / name;
  }
  static Image picture() {
    Image image{20, 16, std::vector<std::uint8_t>(20 * 16 * 3)};
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      image.pixels[i] = static_cast<std::uint8_t>(i * 37 * (i + 3) % 251);
    return image;
  }
  static std::vector<float> seen(const std::shared_ptr<const Model>& model) {
    Context ctx({.threads = 1});
    return model->encode(ctx, picture()).to_vector();
  }
  const fs::path out_ =
      fs::temp_directory_path() / ("tessera-quantized-" + std::to_string(::getpid()));
};

TEST_F(Quantize, TowersComputeWhatTheyWouldWhenRoundedAtOpening) {
  for (const char* name : {"vit-classify", "tessera-memory"}) {
    fs::remove_all(out_);
    const QuantizeReport report =
        quantize_checkpoint(family(name), out_, {.precision = Precision::int8});
    EXPECT_GT(report.eight_bits, 0) << name;
    EXPECT_LT(report.bytes_after, report.bytes_before) << name;
    const auto saved = Model::open(out_);
    EXPECT_TRUE(saved->unread.empty()) << name << ": " << saved->unread.front();
    EXPECT_EQ(saved->config.at("quantization_config").string("format"), "int-quantized");
    // What stays in floats in the file (patches, probes) is rounded by neither.
    const auto rounded = Model::open(out_, {.precision = Precision::int8}),
               original = Model::open(family(name), {.precision = Precision::int8});
    EXPECT_EQ(seen(rounded), seen(original)) << name;
  }
}

TEST_F(Quantize, OtherNumbersMayBeHalved) {
  const fs::path from = family("tessera-memory");
  quantize_checkpoint(from, out_, {.precision = Precision::int8, .half = true});
  const Weights saved = Weights::open(out_), original = Weights::open(from);
  for (const std::string& name : saved.names()) {
    if (name.ends_with("_scale")) continue;
    const Tensor t = saved.get(name);
    EXPECT_NE(t.dtype(), DType::f32) << name;
    if (t.dtype() != DType::f16) continue;
    const Tensor a = t.to_f32(), b = original.get_f32(name, t.shape());
    for (std::int64_t i = 0; i < a.numel(); ++i)
      ASSERT_NEAR(a.data()[i], b.data()[i], 5e-4f * std::abs(b.data()[i]) + 1e-7f) << name;
  }
  EXPECT_EQ(seen(Model::open(out_)).size(), seen(Model::open(from)).size());
}

TEST_F(Quantize, FourBitsWhereTheyFit) {
  const QuantizeReport report =
      quantize_checkpoint(family("tessera-memory"), out_, {.precision = Precision::int4});
  EXPECT_GT(report.eight_bits, 0);  // the towers
  const auto saved = Model::open(out_);
  EXPECT_TRUE(saved->unread.empty());
  EXPECT_EQ(saved->weights->parameters(),
            Model::open(family("tessera-memory"))->weights->parameters());
  EXPECT_EQ(seen(saved).size(), seen(Model::open(family("tessera-memory"))).size());
}

TEST(QuantizedTensors, FourBitsReadBackAsTheyWereRounded) {
  const std::int64_t rows = 11, columns = 96;
  Tensor weight = Tensor::empty({rows, columns}), x = Tensor::zeros({1, columns});
  for (std::int64_t i = 0; i < weight.numel(); ++i)
    weight.data()[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.4f;
  for (std::int64_t i = 0; i < columns; ++i) x.data()[i] = static_cast<float>(i % 7) - 3;
  const fs::path file = fs::temp_directory_path() /
                        ("tessera-nibbles-" + std::to_string(::getpid()) + ".safetensors");
  save_safetensors(file, stored_form("fc.weight", rounded("fc.weight", weight, 4)));
  const Weights w = Weights::open(file);
  Context ctx({.threads = 1});
  for (const Precision precision : {Precision::as_stored, Precision::int4}) {
    const Linear read(w.with(precision).at("fc"), columns, rows, Linear::Bias::none);
    EXPECT_EQ(read(ctx, x).to_vector(), Linear(weight, {}, Precision::int4)(ctx, x).to_vector());
  }
  EXPECT_TRUE(w.leftovers().empty());
  fs::remove(file);
}

TEST_F(Quantize, RefusesWhatItCannotDo) {
  fs::create_directories(out_ / "something");
  EXPECT_THROW(quantize_checkpoint(family("vit-classify"), out_, {.precision = Precision::int8}),
               ArgumentError);
  fs::remove_all(out_);
  EXPECT_THROW(quantize_checkpoint(family("vit-classify"), out_, {.precision = Precision::f32}),
               ArgumentError);
  EXPECT_THROW(
      quantize_checkpoint(family("tessera-memory-int8"), out_, {.precision = Precision::int8}),
      ArgumentError);
  EXPECT_THROW(
      quantize_checkpoint(family("no-such-checkpoint"), out_, {.precision = Precision::int8}),
      IoError);
  EXPECT_FALSE(fs::exists(out_)) << "made for nothing";
}

}  // namespace
}  // namespace tessera::fusion
