// Temperature fallback: when a window is decoded again, and what comes of it.
#include "fusion/transcribe.h"

#include "core/error.h"
#include "golden/fixture.h"

namespace tessera::fusion {
namespace {

class FallbackTest : public ::testing::Test {
 protected:
  golden::Case case_{"whisper-fallback"};
  Session session_{Model::open(case_.dir(), {.precision = Precision::f32})};

  Transcript run(const Fallback& fallback, bool condition = false, std::uint64_t seed = 0) {
    TranscribeOptions options;
    options.language = "en";
    options.fallback = fallback;
    options.condition_on_previous = condition;
    options.sampling = session_.defaults("transcribe");
    options.sampling->seed = seed;
    return transcribe(session_, case_.get("samples").to_vector(), options);
  }
};

TEST_F(FallbackTest, UnlikelyWindowsAreTriedToTheLastTemperature) {
  const Transcript t = run({{0, 0.4, 0.8}, {}, 0.0, {}});  // no text is this likely
  ASSERT_GE(t.windows.size(), 2u);
  for (const Window& window : t.windows) {
    EXPECT_EQ(window.temperature, 0.8);
    EXPECT_LT(window.average_log_probability.value(), 0.0);
    EXPECT_FALSE(window.compression_ratio.has_value());
  }
}

TEST_F(FallbackTest, LikelyWindowsAreTriedOnce) {
  const Transcript first = run({}), t = run({{0, 0.4, 0.8}, 100.0, -100.0, 0.0});
  EXPECT_EQ(t.ids, first.ids);
  for (const Window& window : t.windows) {
    EXPECT_EQ(window.temperature, 0.0);
    EXPECT_FALSE(window.no_speech_probability.has_value());
  }
  for (const Window& window : first.windows) EXPECT_FALSE(window.temperature.has_value());
}

TEST_F(FallbackTest, WindowsThatRepeatThemselvesAreTriedAgain) {
  for (const Window& window : run({{0, 0.2}, 0.0, {}, {}}).windows)
    EXPECT_EQ(window.temperature, 0.2);
}

TEST_F(FallbackTest, SilenceHasNoText) {
  const Transcript t = run({{0, 0.4}, {}, 0.0, 0.0});
  EXPECT_EQ(t.text, "");
  EXPECT_TRUE(t.segments.empty());
  for (const Window& window : t.windows) {
    EXPECT_TRUE(window.silent);
    EXPECT_EQ(window.temperature, 0.0);  // silence is no reason to try again
  }
}

TEST_F(FallbackTest, DrawnTextDependsOnTheSeedOnly) {
  const Fallback hot{{1.5}, {}, {}, {}};
  EXPECT_EQ(run(hot, false, 1).ids, run(hot, false, 1).ids);
  EXPECT_NE(run(hot, false, 1).ids, run(hot, false, 2).ids);
}

TEST_F(FallbackTest, HotTextIsNotShownToTheNextWindow) {
  const auto prompts = [](const Transcript& t) {
    std::vector<std::size_t> sizes;
    for (const Window& window : t.windows) sizes.push_back(window.prompt.size());
    return sizes;
  };
  const auto cool = prompts(run({{0.4}, {}, {}, {}}, true)),
             hot = prompts(run({{0.5}, {}, {}, {}}, true));
  ASSERT_GE(cool.size(), 2u);
  EXPECT_GT(cool[1], cool[0]);
  for (const std::size_t size : hot) EXPECT_EQ(size, hot[0]);
}

TEST_F(FallbackTest, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(run({{-0.1}, {}, {}, {}}), ArgumentError);
  EXPECT_THROW(run({{}, {}, {}, 0.5}), ArgumentError);
}

TEST(CompressionRatio, EqualsThatOfPythonsZlib) {
  // len(b) / len(zlib.compress(b)), b = b"".join(i.to_bytes(n, "little") for i in ids)
  std::vector<std::int32_t> counted(60), same(60, 50000);
  for (int i = 0; i < 60; ++i) counted[static_cast<std::size_t>(i)] = i * i;
  EXPECT_NEAR(compression_ratio(counted, 51864), 0.9160305, 1e-6);
  EXPECT_NEAR(compression_ratio(same, 51864), 9.2307692, 1e-6);
  EXPECT_NEAR(compression_ratio(same, 200), 5.0000000, 1e-6);
  EXPECT_EQ(compression_ratio({}, 51864), 0);
}

TEST(SpeechTokens, TakesTheThresholdsOfTheGenerationConfig) {
  const Config config = Config::parse(
      R"({"logprob_threshold": -0.5, "compression_ratio_threshold": 2.4, "no_speech_threshold": null,
          "condition_on_prev_tokens": true, "suppress_tokens": [1, 7, 9]})",
      "test");
  const SpeechTokens tokens(config, Config());
  EXPECT_EQ(tokens.fallback.logprob_threshold, -0.5);
  EXPECT_EQ(tokens.fallback.compression_ratio_threshold, 2.4);
  EXPECT_FALSE(tokens.fallback.no_speech_threshold.has_value());
  EXPECT_TRUE(tokens.condition_on_previous);
  EXPECT_EQ(tokens.previous, 7);  // not named: the last but one of suppress_tokens
}

class PiecesTest : public FallbackTest {
 protected:
  Transcript run(std::int64_t batch, bool timestamps = false, const TranscribeHooks& hooks = {}) {
    TranscribeOptions options;
    options.language = "en";
    options.batch = batch;
    options.timestamps = timestamps;
    options.fallback = fallback_;
    return transcribe(session_, case_.get("samples").to_vector(), options, hooks);
  }
  Fallback fallback_;
};

TEST_F(PiecesTest, EachIsDecodedAsASoundOfItsOwn) {
  const std::vector<float> samples = case_.get("samples").to_vector();
  const Transcript t = run(3);
  ASSERT_GE(t.windows.size(), 3u);
  ASSERT_EQ(t.segments.size(), t.windows.size());
  for (std::size_t i = 0; i < t.segments.size(); ++i) {
    const auto begin = static_cast<std::size_t>(t.segments[i].start * audio::kSampleRate + 0.5);
    const auto end =
        i + 1 < t.segments.size()
            ? static_cast<std::size_t>(t.segments[i + 1].start * audio::kSampleRate + 0.5)
            : samples.size();
    ASSERT_LT(begin, end);
    TranscribeOptions alone;
    alone.language = "en";
    const Transcript own =
        transcribe(session_, std::span(samples).subspan(begin, end - begin), alone);
    EXPECT_EQ(t.windows[i].ids, own.windows.front().ids) << i;
  }
}

TEST_F(PiecesTest, TheirNumberChangesNothing) {
  for (const bool timestamps : {false, true}) {
    std::vector<double> starts;
    TranscribeHooks hooks;
    hooks.on_segment = [&](const Segment& s) { starts.push_back(s.start); };
    const Transcript two = run(2, timestamps), many = run(16, timestamps, hooks);
    EXPECT_EQ(two.ids, many.ids);
    EXPECT_EQ(two.text, many.text);
    EXPECT_TRUE(std::ranges::is_sorted(starts));
    EXPECT_EQ(starts.size(), many.segments.size());
    for (const Segment& s : many.segments) {
      EXPECT_LE(s.start, s.end);
      EXPECT_LE(s.end, many.seconds + 0.02);
    }
  }
}

TEST_F(PiecesTest, AreDecodedAgainWhereTheyLookWrong) {
  fallback_ = {{0, 0.8}, {}, 0.0, {}};
  for (const Window& window : run(4).windows) EXPECT_EQ(window.temperature, 0.8);
}

TEST_F(PiecesTest, CancelledTheyEndWithTheLastWhole) {
  const std::size_t all = run(2).segments.size();
  TranscribeHooks hooks;
  hooks.on_segment = [&](const Segment&) { session_.cancel(); };
  const Transcript t = run(2, false, hooks);
  EXPECT_EQ(t.stop_reason, text::StopReason::cancelled);
  EXPECT_GE(t.segments.size(), 1u);
  EXPECT_LT(t.segments.size(), all);
}

TEST_F(PiecesTest, CannotSeeTheTextBefore) {
  TranscribeOptions options;
  options.batch = 2;
  options.condition_on_previous = true;
  EXPECT_THROW(transcribe(session_, case_.get("samples").to_vector(), options), ArgumentError);
}

}  // namespace
}  // namespace tessera::fusion
