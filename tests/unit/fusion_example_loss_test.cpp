// The loss of examples: what counts, what is kept, what is refused.
#include "fusion/example_loss.h"

#include <fstream>

#include "core/error.h"
#include "core/tape.h"
#include "golden/fixture.h"
#include "temporary_folder.h"
#include "tone_file.h"

namespace tessera::fusion {
namespace {

using golden::Case;

class ExampleLossTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path;
  Context ctx_{{.threads = 2}};

  std::shared_ptr<const Model> model(const std::string& name) {
    return Model::open(Case(name).dir(), {.precision = Precision::in_place});
  }
  ExampleLoss loss(const std::string& name, const std::string& lines,
                   const ExampleLossOptions& options = {}) {
    std::ofstream(folder_ / "list.jsonl") << lines;
    return {model(name), read_examples(folder_ / "list.jsonl"), options};
  }
  void write_sound(const std::string& name, int hertz) {
    testing::write_tone(folder_ / name, hertz);
  }
  double mean(const ExampleLoss& l, const std::vector<std::int64_t>& which, std::int64_t turn = 0) {
    const auto sum = l(ctx_, which, turn);
    return static_cast<double>(sum.loss.data()[0]) / static_cast<double>(sum.count);
  }
};

constexpr const char* kTwoSounds =
    "{\"audio\": \"a.wav\", \"text\": [\"a b\", \"c\"]}\n{\"audio\": \"b.wav\", \"text\": \"d\"}";

TEST_F(ExampleLossTest, ABatchIsTheSumOfItsExamples) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const ExampleLoss l = loss("whisper-english", kTwoSounds);
  const std::vector<std::int64_t> both = {0, 1}, first = {0}, second = {1};
  const auto sum = l(ctx_, both, 0), a = l(ctx_, first, 0), b = l(ctx_, second, 0);
  EXPECT_EQ(sum.count, a.count + b.count);
  EXPECT_EQ(sum.right, a.right + b.right);
  EXPECT_NEAR(static_cast<double>(sum.loss.data()[0]),
              static_cast<double>(a.loss.data()[0] + b.loss.data()[0]), 1e-4);
  EXPECT_EQ(l.targets(), sum.count);
}

TEST_F(ExampleLossTest, SampledTokensNeedATiedOutputLayer) {
  const std::string text = "{\"text\": \"a b c\"}";
  EXPECT_NO_THROW(loss("tessera-splice", text, {.sampled_tokens = 5}));
  EXPECT_THROW(loss("tessera-splice-deit", text, {.sampled_tokens = 5}), UnsupportedError);
}

TEST_F(ExampleLossTest, TurnsChooseAmongTheTexts) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const ExampleLoss l = loss("whisper-english", kTwoSounds);
  EXPECT_NE(mean(l, {0}, 0), mean(l, {0}, 1));
  EXPECT_EQ(mean(l, {0}, 0), mean(l, {0}, 2));
  EXPECT_EQ(mean(l, {1}, 0), mean(l, {1}, 1));
}

TEST_F(ExampleLossTest, SeveralTextsAreSeveralTurns) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const std::vector<std::int64_t> first = {0};
  const ExampleLoss one = loss("whisper-english", kTwoSounds),
                    two = loss("whisper-english", kTwoSounds, {.texts = 2});
  const auto a = one(ctx_, first, 0), b = one(ctx_, first, 1), both = two(ctx_, first, 0);
  EXPECT_EQ(both.count, a.count + b.count);
  EXPECT_NEAR(both.loss.data()[0], a.loss.data()[0] + b.loss.data()[0], 1e-4f);
}

TEST_F(ExampleLossTest, EveryTextMayHaveItsPrompt) {
  const ExampleLoss together = loss("tessera-splice",
                                    "{\"prompt\": [\"ab\", \"\"], \"completion\": [\"c\", "
                                    "\"de\"]}",
                                    {.texts = 2}),
                    apart = loss("tessera-splice",
                                 "{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"prompt\": "
                                 "\"\", \"completion\": \"de\"}");
  const auto all = together(ctx_, std::vector<std::int64_t>{0}, 0),
             each = apart(ctx_, std::vector<std::int64_t>{0, 1}, 0);
  EXPECT_EQ(all.count, each.count);
  EXPECT_NEAR(all.loss.data()[0], each.loss.data()[0], 1e-4f);
}

TEST_F(ExampleLossTest, SampledTokensAreFewerRivals) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const auto at = [&](std::int64_t tokens) {
    return mean(loss("whisper-english", kTwoSounds, {.sampled_tokens = tokens}), {0, 1});
  };
  EXPECT_LT(at(5), at(0));
  EXPECT_EQ(at(5), at(5));
  EXPECT_NEAR(at(100000), at(0), 1e-5) << "all of them";
}

TEST_F(ExampleLossTest, DrawnAnswersWeighWhatTheyAreBetter) {
  std::filesystem::copy_file(std::filesystem::path(TESSERA_SOURCE_DIR) / "docs/media/weather.png",
                             folder_ / "a.png");
  const std::string lines =
      "{\"image\": \"a.png\", \"text\": [\"a b\", \"c\"]}\n{\"image\": \"a.png\", \"prompt\": "
      "[\"d\", \"\"], \"text\": [\"e\", \"f\"]}";
  const ExampleLoss l = loss("tessera-memory", lines, {.rewards = {"bleu", "cider-d"}, .draws = 3});
  const std::vector<std::int64_t> both = {0, 1};
  const auto sum = l(ctx_, both, 0), again = l(ctx_, both, 0);
  EXPECT_EQ(sum.drawn, 6);
  EXPECT_GT(sum.count, 0);
  EXPECT_EQ(sum.loss.data()[0], again.loss.data()[0]) << "the same are drawn";
  EXPECT_THROW(loss("tessera-memory", lines, {.rewards = {"luck"}}), ArgumentError);
  EXPECT_THROW(loss("tessera-memory", lines, {.rewards = {"bleu"}, .draws = 1}), ArgumentError);
}

TEST(AnswerReward, IsHigherForWhatPeopleWrote) {
  Examples examples{.file = "list", .kind = ExampleKind::caption, .mixed = false, .list = {}};
  for (const char* text : {"A dog runs on the beach.", "Two men play the guitar."}) {
    Example e;
    e.line = std::ssize(examples.list) + 1;
    e.texts = {text};
    examples.list.push_back(e);
  }
  const AnswerReward reward(examples, {"cider-d", "bleu"});
  const Example& dog = examples.list.front();
  EXPECT_NEAR(reward(dog, "A dog runs on the beach.", true), 10 + 1, 1e-6);
  EXPECT_LT(reward(dog, "A dog runs on the beach.", false), 10);
  EXPECT_NEAR(reward(dog, "Two men play the guitar.", true), 0.2, 0.2);
}

TEST(AnswerReward, IsLessForWhatBreaksOff) {
  Examples examples{.file = "list", .kind = ExampleKind::caption, .mixed = false, .list = {}};
  for (int i = 0; i < 100; ++i) {
    Example e;
    e.line = i + 1;
    e.texts = {i % 2 ? "A dog is there." : "A dog is in the snow."};
    examples.list.push_back(e);
  }
  const AnswerReward reward(examples, {"bleu"});
  const Example& first = examples.list.front();
  EXPECT_LT(reward(first, "A dog is.", true), 0);
  EXPECT_GT(reward(first, "A dog is there.", true), 0);
}

TEST_F(ExampleLossTest, FeaturesAreKeptUntilTheFileChanges) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  ExampleLoss l = loss("whisper-english", kTwoSounds);
  const double plain = mean(l, {0, 1});
  l.keep_features(ctx_, folder_ / "features");
  EXPECT_EQ(mean(l, {0, 1}), plain);
  EXPECT_EQ(mean(l, {0, 1}), plain);  // from the files
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(folder_ / "features"), {});
  };
  EXPECT_EQ(count(), 2);
  write_sound("a.wav", 200);
  const auto file = folder_ / "a.wav";
  std::filesystem::last_write_time(file,
                                   std::filesystem::last_write_time(file) + std::chrono::hours(1));
  EXPECT_NE(mean(l, {0, 1}), plain);
  EXPECT_EQ(count(), 3);
}

TEST_F(ExampleLossTest, KnowsWhetherATowerIsTrained) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const Case c("whisper-english");
  const Weights all = c.weights();
  std::vector<NamedTensor> parameters;
  for (const std::string& name : all.names())
    parameters.push_back({name, all.get(name).to_f32().clone()});
  const auto trained = Model::open(c.dir(), {.weights = Weights::of(parameters)});
  std::ofstream(folder_ / "list.jsonl") << kTwoSounds;
  ExampleLoss l(trained, read_examples(folder_ / "list.jsonl"), {});
  for (const bool tower : {true, false}) {
    Tape tape;
    for (const NamedTensor& p : parameters)
      if ((p.name.find("encoder.layers") != p.name.npos) == tower) tape.watch(p.tensor);
    if (!tower) {
      tape = Tape();
      for (const NamedTensor& p : parameters)
        if (p.name.starts_with("model.decoder.")) tape.watch(p.tensor);
    }
    ctx_.tape = &tape;
    const auto kept = folder_ / (tower ? "none" : "features");
    l.keep_features(ctx_, kept);
    ctx_.tape = nullptr;
    mean(l, {0});
    EXPECT_EQ(std::filesystem::exists(kept), !tower);
  }
}

TEST_F(ExampleLossTest, KindsAreMixedInOneBatch) {
  write_sound("a.wav", 440);
  std::filesystem::copy_file(std::filesystem::path(TESSERA_SOURCE_DIR) / "docs/media/weather.png",
                             folder_ / "a.png");
  const ExampleLoss l =
      loss("tessera-memory",
           "{\"audio\": \"a.wav\", \"text\": \"a b\"}\n{\"image\": \"a.png\", \"text\": \"c\"}\n"
           "{\"image\": \"a.png\", \"audio\": \"a.wav\", \"task\": \"caption\", \"text\": \"c\"}");
  EXPECT_TRUE(l.examples().mixed);
  const std::vector<std::int64_t> all = {0, 1, 2};
  const auto sum = l(ctx_, all, 0);
  double alone = 0;
  for (const std::int64_t i : all)
    alone += static_cast<double>(l(ctx_, std::vector{i}, 0).loss.data()[0]);
  EXPECT_NEAR(static_cast<double>(sum.loss.data()[0]), alone, 1e-3);
  EXPECT_NE(mean(l, {1}), mean(l, {2})) << "the sound is seen, too";
}

TEST_F(ExampleLossTest, RefusesWhatTheModelCannotTake) {
  write_sound("a.wav", 440), write_sound("b.wav", 900);
  const auto refusal = [&](const std::string& name, const std::string& lines,
                           const ExampleLossOptions& options = {}) {
    try {
      loss(name, lines, options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(refusal("vit-classify", kTwoSounds).find("no sound tower"), std::string::npos);
  EXPECT_NE(
      refusal("whisper-english", "{\"image\": \"a.wav\", \"text\": \"a\"}").find("no image tower"),
      std::string::npos);
  EXPECT_NE(refusal("vit-classify", "{\"text\": \"a\"}").find("no text decoder"),
            std::string::npos);
  EXPECT_NE(refusal("whisper-multilingual", kTwoSounds).find("the language"), std::string::npos);
  EXPECT_EQ(refusal("whisper-multilingual", kTwoSounds, {.language = "de", .task = ""}), "nothing");
  const std::string words(400, 'a');
  EXPECT_NE(refusal("whisper-english",
                    "{\"audio\": \"a.wav\", \"text\": \"b\"}\n{\"audio\": \"a.wav\", \"text\": \"" +
                        words + "\"}")
                .find("list.jsonl:2: "),
            std::string::npos);
  EXPECT_NE(refusal("whisper-english", "{\"prediction\": \"a\", \"text\": \"a\"}")
                .find("tessera evaluate"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera::fusion
