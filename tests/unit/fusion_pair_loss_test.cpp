// What a dual encoder learns from pairs of images and texts.
#include <cmath>
#include <fstream>

#include "core/error.h"
#include "core/loss.h"
#include "core/tape.h"
#include "fusion/example_loss.h"
#include "golden/fixture.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

using golden::Case;
using Which = std::vector<std::int64_t>;
namespace fs = std::filesystem;

class PairLossTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path;
  Context ctx_{{.threads = 2}};

  std::shared_ptr<const Model> model(const std::string& name = "clip-published") {
    return Model::open(Case(name).dir(), {.precision = Precision::in_place});
  }
  static std::string image(const char* name) {
    return (Case::folder() / "../images" / name).string();
  }
  std::string line(const char* name, const std::string& more) {
    return concat("{\"image\": \"", image(name), "\", ", more, "}\n");
  }
  std::string three() {
    return line("png_rgb8.png", R"("text": ["a dog", "two dogs"])") +
           line("bmp_24.bmp", R"("text": "a red car")") +
           line("webp_lossy.webp", R"("text": "the cat")");
  }
  Examples examples(const std::string& lines) {
    std::ofstream(folder_ / "list.jsonl") << lines;
    return read_examples(folder_ / "list.jsonl");
  }
  static float value(const ExampleLoss::Sum& sum) { return sum.loss.data()[0]; }
};

TEST_F(PairLossTest, IsClipsLossOfTheBatch) {
  const auto m = model();
  const ExampleLoss loss(m, examples(three()), {});
  EXPECT_STREQ(loss.unit(), "pairs");
  EXPECT_EQ(loss.size(), 3);
  EXPECT_EQ(loss.targets(), 3);
  const DualEncoder encoder(m);
  for (const auto& [turn, first] : {std::pair(0, "a dog"), {1, "two dogs"}, {2, "a dog"}}) {
    std::vector<vision::Image> images;
    for (const char* name : {"png_rgb8.png", "bmp_24.bmp", "webp_lossy.webp"})
      images.push_back(vision::load_image(image(name)));
    const std::vector<std::string> texts = {first, "a red car", "the cat"};
    const auto sum = loss(ctx_, Which{0, 1, 2}, turn);
    const Tensor expected =
        contrastive_loss(ctx_, encoder.encode_images(ctx_, images),
                         encoder.encode_texts(ctx_, texts), m->dual->logit_scale);
    EXPECT_NEAR(value(sum), expected.data()[0], 1e-4f * expected.data()[0]) << turn;
    EXPECT_EQ(sum.count, 3);
    EXPECT_GE(sum.right, 0);
    EXPECT_LE(sum.right, 3);
  }
}

/// siglip-pair with the words of clip-published, whose vocabulary has as many tokens.
fs::path siglip_with_words(const fs::path& folder) {
  fs::copy(Case("siglip-pair").dir(), folder);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    fs::copy(Case("clip-published").dir() / name, folder / name);
  return folder;
}

TEST_F(PairLossTest, IsSigLipsWhereTheCheckpointHasABias) {
  const auto m =
      Model::open(siglip_with_words(folder_ / "siglip"), {.precision = Precision::in_place});
  const ExampleLoss loss(m, examples(three()), {});
  const DualEncoder encoder(m);
  std::vector<vision::Image> images;
  for (const char* name : {"png_rgb8.png", "bmp_24.bmp", "webp_lossy.webp"})
    images.push_back(vision::load_image(image(name)));
  const std::vector<std::string> texts = {"a dog", "a red car", "the cat"};
  const Tensor a = encoder.encode_images(ctx_, images), b = encoder.encode_texts(ctx_, texts);
  const DualParts& parts = *m->dual;
  const auto sum = loss(ctx_, Which{0, 1, 2}, 0);
  EXPECT_NEAR(value(sum),
              sigmoid_pair_loss(ctx_, a, b, parts.logit_scale, parts.logit_bias).data()[0], 1e-4f);
  EXPECT_EQ(sum.count, 3);
  const ExampleLoss other(m, examples(three()), {.pair_loss = PairLoss::softmax});
  EXPECT_NEAR(value(other(ctx_, Which{0, 1, 2}, 0)),
              contrastive_loss(ctx_, a, b, parts.logit_scale).data()[0], 1e-4f);
}

TEST_F(PairLossTest, NoImageIsInABatchTwice) {
  const ExampleLoss loss(model(), examples(three()), {});
  const auto once = loss(ctx_, Which{2, 0}, 0), twice = loss(ctx_, Which{2, 0, 2, 0, 0}, 0);
  EXPECT_EQ(twice.count, 2);
  EXPECT_EQ(value(once), value(twice));
}

TEST_F(PairLossTest, LinesOfOneImageAreOneExample) {
  const std::string other = line("../images/png_rgb8.png", R"("text": "two dogs")");
  const ExampleLoss loss(model(),
                         examples(line("png_rgb8.png", R"("text": "a dog")") +
                                  line("bmp_24.bmp", R"("text": "a red car")") + other),
                         {});
  ASSERT_EQ(loss.size(), 2);
  EXPECT_EQ(loss.examples().list[0].texts, (std::vector<std::string>{"a dog", "two dogs"}));
  EXPECT_NE(value(loss(ctx_, Which{0, 1}, 0)), value(loss(ctx_, Which{0, 1}, 1)));
}

TEST_F(PairLossTest, RowsOfAFrozenTowerAreKept) {
  const auto m = model();
  ExampleLoss loss(m, examples(three()), {});
  const auto before = value(loss(ctx_, Which{0, 1, 2}, 0));
  Tape tape;
  tape.watch(m->weights->get("visual_projection.weight"));
  const TapeScope recording(ctx_, &tape);
  loss.keep_features(ctx_, folder_ / "features");
  EXPECT_FLOAT_EQ(value(loss(ctx_, Which{0, 1, 2}, 0)), before);
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "features")) {
    ++files;
    EXPECT_EQ(Weights::open(entry.path()).get("rows").shape(), (Shape{1, 18}))
        << "the class token's row, all that pooling looks at";
  }
  EXPECT_EQ(files, 3u);
  EXPECT_FLOAT_EQ(value(loss(ctx_, Which{0, 1, 2}, 0)), before);
}

TEST_F(PairLossTest, TheScaleStaysAtAHundredOrBelow) {
  const Case c("clip-published");
  std::vector<NamedTensor> parameters;
  for (const std::string& name : c.weights().names())
    parameters.push_back({name, c.weights().get(name).to_f32().clone()});
  const auto m = Model::open(c.dir(), {.weights = Weights::of(parameters)});
  const ExampleLoss loss(m, examples(three()), {});
  Tensor scale = m->dual->logit_scale;
  for (const auto& [given, kept] : {std::pair(7.0f, std::log(100.0f)), {2.5f, 2.5f}}) {
    scale.data()[0] = given;
    loss.keep_bounds();
    EXPECT_FLOAT_EQ(m->weights->get("logit_scale").data()[0], kept);
  }
}

TEST_F(PairLossTest, WhatIsNoPairIsRefused) {
  const auto m = model();
  for (const std::string& lines :
       {line("bmp_24.bmp", R"("text": "a", "prompt": "What?")"),
        three() + line("bmp_24.bmp", R"("prompt": ["x"], "text": ["a"])"),
        line("bmp_24.bmp", R"("label": 3)"), std::string("{\"text\": \"a\"}")}) {
    EXPECT_THROW(ExampleLoss(m, examples(lines), {}), FormatError) << lines;
  }
  EXPECT_THROW(ExampleLoss(m, examples(three()), {.texts = 2}), ArgumentError);
  EXPECT_THROW(ExampleLoss(m, examples(three()), {.rewards = {"bleu"}}), ArgumentError);
  EXPECT_THROW(ExampleLoss(m, examples(three()), {.pair_loss = PairLoss::sigmoid}), ArgumentError)
      << "it has no logit_bias";
  EXPECT_THROW(ExampleLoss(model("dual-vit"), examples(three()), {}), UnsupportedError)
      << "it has no tokenizer";
}

}  // namespace
}  // namespace tessera::fusion
