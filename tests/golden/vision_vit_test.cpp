#include "golden/fixture.h"
#include "golden/stages.h"
#include "vision/image_processor.h"
#include "vision/tower.h"

namespace tessera::vision {
namespace {

using golden::Case;

std::vector<std::string> cases() {
  std::vector<std::string> names = Case::all("vit-");
  for (const char* family : {"deit-", "siglip-", "clip-"})
    for (const std::string& name : Case::all(family)) names.push_back(name);
  return names;
}

class Tower : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  std::unique_ptr<VisionTower> tower_ = load_tower(case_.config(), case_.weights());
  Context ctx_;
};

TEST_P(Tower, EveryStageMatchesTheReference) {
  for (int i = -1; i < 16; ++i) {
    const std::string suffix = i < 0 ? "" : "." + std::to_string(i),
                      prefix = i < 0 ? "" : std::to_string(i) + ".";
    if (!case_.has("pixels" + suffix)) continue;
    const Tensor pixels = case_.get("pixels" + suffix);
    golden::StageCheck stages(ctx_, case_, prefix);
    const Tensor rows = tower_->encode(ctx_, pixels);
    EXPECT_TRUE(case_.matches(prefix + "last_hidden", rows));
    EXPECT_GE(stages.finish(), 1);
    const std::string pooled = case_.has("pooler_output") ? "pooler_output" : prefix + "pooled";
    if (case_.has(pooled)) {
      EXPECT_TRUE(case_.matches(pooled, tower_->pool(ctx_, rows)));
      if (const std::int64_t first = tower_->pooled_rows(); first > 0) {
        EXPECT_TRUE(case_.matches(pooled, tower_->pool(ctx_, rows.slice(0, first))));
      }
    } else {
      EXPECT_THROW(tower_->pool(ctx_, rows), UnsupportedError);
    }
    if (case_.has(prefix + "logits")) {
      EXPECT_TRUE(case_.matches(prefix + "logits", tower_->classify(ctx_, pixels)));
    } else {
      EXPECT_THROW(tower_->classify(ctx_, pixels), UnsupportedError);
    }
  }
}

TEST_P(Tower, SeveralImagesInOnePassAreAsEachAlone) {
  std::vector<Tensor> pixels;
  for (const char* name : {"pixels", "pixels.0", "pixels.1"})
    if (case_.has(name)) pixels.push_back(case_.get(name));
  pixels.push_back(pixels.front());
  const std::vector<Tensor> together = tower_->encode(ctx_, pixels);
  ASSERT_EQ(together.size(), pixels.size());
  for (std::size_t i = 0; i < pixels.size(); ++i)
    EXPECT_TRUE(golden::close_to(together[i], tower_->encode(ctx_, pixels[i]), 1e-5)) << i;
  EXPECT_TRUE(tower_->encode(ctx_, std::span<const Tensor>()).empty());
}

TEST_P(Tower, NothingIsLeftUnread) {
  const Weights weights = case_.weights();
  load_tower(case_.config(), weights);
  EXPECT_EQ(weights.leftovers(), std::vector<std::string>());
}

TEST_P(Tower, LabelsAreTheConfigs) {
  if (case_.notes().has("labels")) {
    EXPECT_EQ(tower_->labels(), case_.notes().strings("labels"));
  } else {
    EXPECT_TRUE(tower_->labels().empty() || GetParam() == "vit-interpolate");
  }
}

TEST_P(Tower, PixelsComeOutOfThePreprocessor) {
  if (!case_.has("image")) GTEST_SKIP() << "this case begins with pixels";
  const Tensor raw = case_.get_raw("image");
  const auto* bytes = raw.data<std::uint8_t>();
  const Image image{raw.dim(1), raw.dim(0), {bytes, bytes + raw.numel()}};
  EXPECT_TRUE(case_.matches("pixels", ImageProcessor(case_.preprocessor_config())(image), 1e-6));
}

INSTANTIATE_TEST_SUITE_P(Golden, Tower, ::testing::ValuesIn(cases()), golden::case_name);

}  // namespace
}  // namespace tessera::vision
