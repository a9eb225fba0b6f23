// CLIP, SigLIP and VisionTextDualEncoder beside HF's.
#include "fusion/dual_encoder.h"

#include <fstream>

#include "core/error.h"
#include "core/loss.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

using golden::Case;
using Ids = std::vector<std::int32_t>;

std::vector<std::string> cases() {
  std::vector<std::string> names = {"clip-published", "clip-old", "siglip-pair"};
  for (const std::string& name : Case::all("dual-")) names.push_back(name);
  return names;
}

DualEncoder open(const Case& c) {
  return DualEncoder(Model::open(c.dir(), {.precision = Precision::f32, .needs_tokenizer = false}));
}

std::vector<Ids> lists(const Config& list) {
  std::vector<Ids> out;
  for (std::size_t i = 0; i < list.size(); ++i) {
    out.emplace_back();
    for (std::size_t j = 0; j < list[i].size(); ++j)
      out.back().push_back(static_cast<std::int32_t>(list[i][j].as_integer()));
  }
  return out;
}

/// The texts of a case as the tower wants them: filled up where it says so.
std::vector<Ids> texts_of(const Case& c, const DualEncoder& encoder) {
  std::vector<Ids> texts = lists(c.notes().at("text_ids"));
  const text::TextTower& tower = encoder.model().dual->text;
  for (Ids& ids : texts) {
    if (tower.filler() >= 0)
      ids.resize(static_cast<std::size_t>(tower.max_positions()), tower.filler());
  }
  return texts;
}

class DualEncoders : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  DualEncoder encoder_ = open(case_);
  Context ctx_{{.threads = 2}};
  std::vector<Ids> texts_ = texts_of(case_, encoder_);
  std::vector<Tensor> pixels_ = {case_.get("pixels"), case_.get("other.0"), case_.get("other.1")};
};

TEST_P(DualEncoders, VectorsAndLogitsAreThoseOfTheReference) {
  EXPECT_EQ(encoder_.model().unread, std::vector<std::string>());
  const Tensor images = encoder_.encode_pixels(ctx_, pixels_),
               texts = encoder_.encode_ids(ctx_, texts_);
  EXPECT_EQ(images.dim(1), encoder_.width());
  EXPECT_TRUE(case_.matches("image_embeds", images));
  EXPECT_TRUE(case_.matches("text_embeds", texts));
  const Tensor cosines = encoder_.cosines(ctx_, images, texts);
  EXPECT_TRUE(case_.matches("logits_per_image", encoder_.logits(ctx_, cosines)));
}

TEST_P(DualEncoders, TogetherIsAsEachAlone) {
  const Tensor images = encoder_.encode_pixels(ctx_, pixels_),
               texts = encoder_.encode_ids(ctx_, texts_);
  for (std::size_t i = 0; i < pixels_.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    EXPECT_TRUE(golden::close_to(encoder_.encode_pixels(ctx_, std::span(&pixels_[i], 1)),
                                 images.slice(at, at + 1), 1e-5));
  }
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    EXPECT_TRUE(golden::close_to(encoder_.encode_ids(ctx_, std::span(&texts_[i], 1)),
                                 texts.slice(at, at + 1), 1e-5));
  }
  EXPECT_EQ(encoder_.encode_ids(ctx_, {}).shape(), (Shape{0, encoder_.width()}));
  EXPECT_EQ(encoder_.encode_images(ctx_, {}).shape(), (Shape{0, encoder_.width()}));
}

TEST_P(DualEncoders, WrongTextsAreRefused) {
  const auto length = static_cast<std::size_t>(encoder_.model().dual->text.max_positions());
  for (const Ids& wrong : {Ids{}, Ids(length + 1, 1), Ids{1, 90}, Ids{-1}})
    EXPECT_THROW(encoder_.encode_ids(ctx_, std::span(&wrong, 1)), ArgumentError);
  if (encoder_.model().tokenizer) return;
  const std::string text = "a dog";
  EXPECT_THROW(encoder_.encode_texts(ctx_, std::span(&text, 1)), UnsupportedError);
}

INSTANTIATE_TEST_SUITE_P(Golden, DualEncoders, ::testing::ValuesIn(cases()), golden::case_name);

TEST(DualEncoder, TextsAndImagesGoTheWholeWay) {
  const Case c("clip-published");
  const DualEncoder encoder = open(c);
  Context ctx({.threads = 2});
  const std::vector<std::string> texts = c.notes().strings("texts");
  const std::vector<Ids> expected = lists(c.notes().at("ids_of_texts"));
  ASSERT_EQ(expected.size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) EXPECT_EQ(encoder.ids_of(texts[i]), expected[i]);
  EXPECT_TRUE(c.matches("embeds_of_texts", encoder.encode_texts(ctx, texts)));

  const Tensor raw = c.get_raw("image");
  const auto* bytes = raw.data<std::uint8_t>();
  const vision::Image image{raw.dim(1), raw.dim(0), {bytes, bytes + raw.numel()}};
  EXPECT_TRUE(golden::close_to(encoder.encode_images(ctx, std::span(&image, 1)),
                               c.get("image_embeds").slice(0, 1), 1e-4));
}

TEST(DualEncoder, ProbabilitiesAreSharedOrEachForItself) {
  Context ctx;
  const Tensor cosines = Tensor::from(std::vector<float>{0.1f, 0.3f, -0.2f, 0.0f}, {2, 2});
  const Tensor shared = open(Case("clip-published")).probabilities(ctx, cosines);
  for (std::int64_t i = 0; i < 2; ++i)
    EXPECT_NEAR(shared[i].data()[0] + shared[i].data()[1], 1, 1e-6);
  const float scale = std::exp(1.5f);
  EXPECT_NEAR(shared.data()[1], 1 / (1 + std::exp(-0.2f * scale)), 1e-6);
  const DualEncoder siglip = open(Case("siglip-pair"));
  const float bias = siglip.model().dual->logit_bias.data()[0];
  EXPECT_NEAR(siglip.probabilities(ctx, cosines).data()[1],
              1 / (1 + std::exp(-0.3f * scale - bias)), 1e-6);
}

TEST(DualEncoder, TheSigmoidLossIsThatOfTheReference) {
  const Case c("siglip-pair");
  const DualEncoder encoder = open(c);
  Context ctx({.threads = 2});
  const std::vector<Tensor> pixels = {c.get("pixels"), c.get("other.0"), c.get("other.1")};
  std::vector<Ids> texts = texts_of(c, encoder);
  texts.resize(3);
  const DualParts& parts = *encoder.model().dual;
  const Tensor loss =
      sigmoid_pair_loss(ctx, encoder.encode_pixels(ctx, pixels), encoder.encode_ids(ctx, texts),
                        parts.logit_scale, parts.logit_bias);
  EXPECT_NEAR(static_cast<double>(loss.data()[0]) / 3, c.notes().number("loss_of_three"), 2e-5);
}

TEST(DualEncoder, OtherCheckpointsSayThatTheyAreNone) {
  EXPECT_THROW(open(Case("vit-classify")), UnsupportedError);
  EXPECT_THROW(open(Case("clip-tower")), UnsupportedError);
}

TEST(DualEncoder, VocabularyFilesAloneAreNotTakenForGpt2s) {
  const testing::TemporaryFolder folder;
  std::filesystem::copy(Case("clip-old").dir(), folder.path);
  std::ofstream(folder.path / "vocab.json") << R"({"a": 0, "b": 1, "ab": 2})";
  std::ofstream(folder.path / "merges.txt") << "#version: 0.2\na b\n";
  const DualEncoder encoder(Model::open(folder.path));
  EXPECT_FALSE(encoder.model().tokenizer);
  EXPECT_THROW(encoder.ids_of("ab"), UnsupportedError);
}

TEST(DualEncoder, TowersOfOtherSpacesAreRefused) {
  const Case c("siglip-published");  // its texts become 6 numbers, its images 18
  try {
    open(c);
    FAIL() << "opened";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("images become 18 numbers, but texts 6"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace tessera::fusion
