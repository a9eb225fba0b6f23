// The decoding loop over a toy language model: how texts end, streaming, seeds, caches.
#include "text/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "unit/toy_language_model.h"

namespace tessera::text {
namespace {

/// Ids 0..11 as text: letters, a word, and the two halves of a character.
const char* const kTokenizer = R"({
  "added_tokens": [{"id": 11, "content": "<end>", "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false}],
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bca": 4,
            "Ġ": 5, "Ã": 6, "©": 7, "d": 8, "e": 9, "Ġcab": 10}}})";
constexpr std::int64_t kVocab = 12;

/// Numbers in [-2, 2) without a pattern.
Tensor random_table(std::int64_t rows, std::int64_t vocab, std::uint64_t seed) {
  Random random(seed);
  Tensor table = Tensor::empty({rows, vocab});
  for (std::int64_t i = 0; i < table.numel(); ++i) {
    table.data()[i] = static_cast<float>(4 * random.uniform() - 2);
  }
  return table;
}

class Generate : public ::testing::Test {
 protected:
  std::vector<Generated> run(const SamplingOptions& options, const GenerateHooks& hooks = {}) {
    return generate(ctx_, model_, &tokenizer_, input(prompt_), options, hooks);
  }
  GenerateInput input(const std::vector<std::int32_t>& prompt) {
    return {model_.new_cache(), model_.embed(ctx_, prompt), prompt};
  }
  static SamplingOptions greedy(std::int64_t tokens) {
    SamplingOptions options;
    options.max_new_tokens = tokens;
    return options;
  }
  static SamplingOptions sampled(std::int64_t tokens, std::uint64_t seed) {
    SamplingOptions options = greedy(tokens);
    options.do_sample = true;
    options.seed = seed;
    return options;
  }
  static SamplingOptions beams(std::int64_t tokens, std::int64_t count) {
    SamplingOptions options = greedy(tokens);
    options.num_beams = options.num_return_sequences = count;
    return options;
  }

  Context ctx_;
  ToyLanguageModel model_{random_table(97, kVocab, 3)};
  Tokenizer tokenizer_ = Tokenizer::parse(kTokenizer, "toy tokenizer");
  std::vector<std::int32_t> prompt_ = {0, 5, 2};
};

TEST_F(Generate, PrefillsOnceThenRunsOneRowAStep) {
  const Generated result = run(greedy(9)).at(0);
  EXPECT_EQ(result.ids.size(), 9u);
  EXPECT_EQ(result.stop_reason, StopReason::max_tokens);
  EXPECT_EQ(model_.forwards, 9);
  EXPECT_EQ(model_.rows_of_logits, 9);
  EXPECT_EQ(model_.longest, 3 + 8);
  EXPECT_EQ(result.text, tokenizer_.decode(result.ids));
}

TEST_F(Generate, StopTokensEndTheTextAndAreNoPartOfIt) {
  const std::vector<std::int32_t> all = run(greedy(12)).at(0).ids;
  SamplingOptions options = greedy(12);
  options.stop_tokens = {99, all[5]};
  const auto first = std::find(all.begin(), all.end(), all[5]);
  const Generated result = run(options).at(0);
  EXPECT_EQ(result.ids, std::vector<std::int32_t>(all.begin(), first));
  EXPECT_EQ(result.stop_reason, StopReason::end_of_text);
}

TEST_F(Generate, StopStringsEndTheTextWhereverTokensBegin) {
  for (const bool beam : {false, true}) {
    const SamplingOptions options = beam ? beams(14, 2) : greedy(14);
    const Generated whole = run(options).at(0);
    ASSERT_GT(whole.text.size(), 14u);
    for (std::size_t at = 0; at < whole.text.size(); ++at) {
      for (const std::size_t length : {1, 2, 3, 5}) {
        SamplingOptions stopping = options;
        stopping.stop_strings = {whole.text.substr(at, length), "never"};
        std::string streamed;
        GenerateHooks hooks;
        hooks.on_token = [&](std::int32_t, const std::string& piece) {
          EXPECT_EQ(piece.find(stopping.stop_strings[0]), piece.npos);
          streamed += piece;
          return true;
        };
        const Generated result = run(stopping, hooks).at(0);
        EXPECT_EQ(streamed, result.text);
        EXPECT_EQ(result.text.find(stopping.stop_strings[0]), result.text.npos);
        if (beam) continue;  // another beam may win then
        EXPECT_EQ(result.stop_reason, StopReason::stop_string);
        EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(stopping.stop_strings[0])));
        EXPECT_TRUE(std::equal(result.ids.begin(), result.ids.end(), whole.ids.begin()));
      }
    }
  }
}

TEST_F(Generate, BeamsEndAtStopStrings) {
  SamplingOptions options = beams(10, 3);
  options.length_penalty = 0;  // what ended early has lost less
  const std::string best = run(options).at(0).text;
  options.stop_strings = {best.substr(best.size() / 2, 2)};
  bool stopped = false;
  for (const Generated& result : run(options)) {
    stopped |= result.stop_reason == StopReason::stop_string;
    EXPECT_EQ(result.text.find(options.stop_strings[0]), std::string::npos);
  }
  EXPECT_TRUE(stopped);
}

TEST_F(Generate, StreamsWholeCharacters) {
  // Only the halves of one character are left to choose from, in turn.
  SamplingOptions options = greedy(7);
  options.suppress_tokens = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11};
  GenerateHooks hooks;
  hooks.process_logits = [](std::span<const std::int32_t> generated, std::span<float> logits) {
    logits[generated.size() % 2 == 0 ? 6 : 7] = 100;
  };
  std::vector<std::pair<std::int32_t, std::string>> shown;
  hooks.on_token = [&](std::int32_t id, const std::string& piece) {
    shown.emplace_back(id, piece);
    return true;
  };
  const Generated result = run(options, hooks).at(0);
  EXPECT_EQ(result.ids, (std::vector<std::int32_t>{6, 7, 6, 7, 6, 7, 6}));
  EXPECT_EQ(result.text, "ééé\uFFFD");
  const std::vector<std::pair<std::int32_t, std::string>> expected = {
      {6, ""}, {7, "é"}, {6, ""}, {7, "é"}, {6, ""}, {7, "é"}, {6, ""}, {-1, "\uFFFD"}};
  EXPECT_EQ(shown, expected);
}

TEST_F(Generate, FullContextIsAnOutcomeTooLongAPromptAnError) {
  model_ = ToyLanguageModel(random_table(97, kVocab, 3), 10);
  for (const auto& options : {greedy(0), greedy(50), beams(0, 2)}) {
    const Generated result = run(options).at(0);
    EXPECT_EQ(result.stop_reason, StopReason::context_full);
    EXPECT_EQ(result.ids.size(), 10u - 3 + 1) << "the last token needs no position";
    EXPECT_EQ(model_.longest, 10);
  }
  prompt_.assign(10, 1);
  EXPECT_EQ(run(greedy(0)).at(0).ids.size(), 1u);
  prompt_.assign(11, 1);
  try {
    run(greedy(1));
    FAIL() << "expected an error";
  } catch (const ArgumentError& e) {
    EXPECT_STREQ(e.what(),
                 "the prompt has 11 tokens, but the model's context ends at 10; shorten it");
  }
}

TEST_F(Generate, MaxLengthCountsThePrompt) {
  SamplingOptions options;
  options.max_length = 8;
  EXPECT_EQ(run(options).at(0).ids.size(), 5u);
  EXPECT_EQ(run(options).at(0).stop_reason, StopReason::max_tokens);
  options.max_new_tokens = 2;
  EXPECT_EQ(run(options).at(0).ids.size(), 2u) << "max_new_tokens goes before max_length";
  options.max_new_tokens = 0;
  options.max_length = 3;
  EXPECT_THROW(run(options), ArgumentError);
}

TEST_F(Generate, ContinuesACache) {
  const std::vector<std::int32_t> whole = run(greedy(8)).at(0).ids;
  GenerateInput first = input({0, 5});
  const Sequence sequence{&first.cache, 2};
  model_.forward(ctx_, first.rows, std::span(&sequence, 1), Outputs::last_rows);
  first.rows = model_.embed(ctx_, std::vector<std::int32_t>{2});
  EXPECT_EQ(generate(ctx_, model_, nullptr, std::move(first), greedy(8)).at(0).ids, whole);
}

TEST_F(Generate, RefusesBadInput) {
  EXPECT_THROW(generate(ctx_, model_, nullptr, {model_.new_cache(), {}, {}}, greedy(1)),
               ArgumentError);
  EXPECT_THROW(
      generate(ctx_, model_, nullptr, {model_.new_cache(), Tensor::zeros({2, 3}), {}}, greedy(1)),
      ShapeError);
  SamplingOptions options = greedy(3);
  options.stop_strings = {"x"};
  EXPECT_THROW(generate(ctx_, model_, nullptr, input(prompt_), options), ArgumentError);
  options = greedy(3);
  options.top_p = 2;
  EXPECT_THROW(run(options), ArgumentError);
}

TEST_F(Generate, EverythingForbiddenIsAnError) {
  for (SamplingOptions options : {greedy(3), sampled(3, 1), beams(3, 2)}) {
    options.suppress_tokens.resize(kVocab);
    std::iota(options.suppress_tokens.begin(), options.suppress_tokens.end(), 0);
    EXPECT_THROW(run(options), ArgumentError);
  }
}

TEST_F(Generate, CallbackAndFlagCancel) {
  const Generated whole = run(greedy(9)).at(0);
  GenerateHooks hooks;
  std::size_t calls = 0;
  hooks.on_token = [&](std::int32_t, const std::string&) { return ++calls < 4; };
  Generated result = run(greedy(9), hooks).at(0);
  EXPECT_EQ(calls, 4u);
  EXPECT_EQ(result.stop_reason, StopReason::cancelled);
  EXPECT_EQ(result.ids, std::vector<std::int32_t>(whole.ids.begin(), whole.ids.begin() + 4));
  EXPECT_EQ(result.text, tokenizer_.decode(result.ids));

  for (const auto& options : {greedy(9), sampled(9, 1), beams(9, 3)}) {
    int asked = 0;
    hooks = {};
    hooks.cancelled = [&] { return ++asked == 3; };
    result = run(options, hooks).at(0);
    EXPECT_EQ(result.stop_reason, StopReason::cancelled);
    EXPECT_EQ(result.ids.size(), 2u);
    hooks.cancelled = [] { return true; };
    result = run(options, hooks).at(0);
    EXPECT_EQ(result.stop_reason, StopReason::cancelled);
    EXPECT_TRUE(result.ids.empty());
  }
}

TEST_F(Generate, SameSeedSameText) {
  const std::vector<std::int32_t> ids = run(sampled(20, 5)).at(0).ids;
  EXPECT_EQ(run(sampled(20, 5)).at(0).ids, ids);
  EXPECT_NE(run(sampled(20, 6)).at(0).ids, ids);
  SamplingOptions cold = sampled(20, 5);
  cold.temperature = 0;
  EXPECT_EQ(run(cold).at(0).ids, run(greedy(20)).at(0).ids);
  cold.temperature = 1;
  cold.top_k = 1;
  EXPECT_EQ(run(cold).at(0).ids, run(greedy(20)).at(0).ids);
}

TEST_F(Generate, ReturnedSequencesAreDrawsOfTheirOwn) {
  SamplingOptions options = sampled(15, 40);
  options.stop_tokens = {11};
  options.num_return_sequences = 5;
  const std::vector<Generated> together = run(options);
  ASSERT_EQ(together.size(), 5u);
  options.num_return_sequences = 1;
  for (const Generated& one : together) {
    const Generated alone = run(options).at(0);
    EXPECT_EQ(one.ids, alone.ids);
    EXPECT_EQ(one.text, alone.text);
    EXPECT_EQ(one.stop_reason, alone.stop_reason);
    ++options.seed;
  }
}

TEST_F(Generate, LogProbabilitiesAreTheModelsOwn) {
  std::vector<double> expected;
  GenerateHooks hooks;
  hooks.process_logits = [&](std::span<const std::int32_t> generated, std::span<float> logits) {
    expected.push_back(logits[4] - log_sum_exp(logits));
    logits[4] = 50;  // whatever processors do
  };
  SamplingOptions options = sampled(6, 1);
  options.temperature = 0.5;
  options.log_probabilities = true;
  const Generated result = run(options, hooks).at(0);
  ASSERT_EQ(result.ids, std::vector<std::int32_t>(6, 4));
  ASSERT_EQ(result.log_probabilities.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(result.log_probabilities[i], expected[i], 1e-6);
}

TEST_F(Generate, BeamScoreIsTheSumOfLogProbabilities) {
  SamplingOptions options = beams(8, 4);
  options.length_penalty = 0.5;
  options.log_probabilities = true;
  double last = HUGE_VAL;
  for (const Generated& result : run(options)) {
    ASSERT_EQ(result.log_probabilities.size(), result.ids.size());
    const double sum =
        std::accumulate(result.log_probabilities.begin(), result.log_probabilities.end(), 0.0);
    EXPECT_NEAR(result.score, sum / std::sqrt(8.0), 1e-5);
    EXPECT_LE(result.score, last);
    last = result.score;
  }
}

TEST_F(Generate, ColdBeamSamplingIsBeamSearch) {
  SamplingOptions options = beams(8, 3);
  const std::vector<Generated> searched = run(options);
  options.do_sample = true;
  options.temperature = 1e-4;
  const std::vector<Generated> drawn = run(options);
  ASSERT_EQ(drawn.size(), searched.size());
  for (std::size_t i = 0; i < drawn.size(); ++i) EXPECT_EQ(drawn[i].ids, searched[i].ids);
  options.temperature = 1;
  EXPECT_EQ(run(options).at(0).ids, run(options).at(0).ids);
}

TEST_F(Generate, BeamSamplingDrawsWithoutPuttingBack) {
  // One step: the two returned are the first two drawn.
  const std::vector<float> logits = {0, 1, 2, -0.5f, 0.7f};
  model_ = ToyLanguageModel(Tensor::from(logits, {1, 5}));
  double p[5], total = 0;
  for (std::size_t i = 0; i < 5; ++i) total += p[i] = std::exp(static_cast<double>(logits[i]));
  constexpr int kRuns = 5000;
  int counts[5][5] = {};
  SamplingOptions options = beams(1, 2);
  options.do_sample = true;
  options.top_k = 0;
  for (int seed = 0; seed < kRuns; ++seed) {
    options.seed = static_cast<std::uint64_t>(seed);
    const auto results = generate(ctx_, model_, nullptr, input({1}), options);
    ASSERT_EQ(results.size(), 2u);
    const auto [low, high] = std::minmax(results[0].ids[0], results[1].ids[0]);
    ++counts[low][high];
  }
  double chi_square = 0;
  for (int i = 0; i < 5; ++i) {
    for (int j = i + 1; j < 5; ++j) {
      const double a = p[i] / total, b = p[j] / total;
      const double expected = kRuns * (a * b / (1 - a) + a * b / (1 - b));
      chi_square += (counts[i][j] - expected) * (counts[i][j] - expected) / expected;
    }
  }
  EXPECT_LT(chi_square, 27.9);  // 99.9 % of chi-square with 9 degrees of freedom
}

TEST(StopReason, HasAName) {
  EXPECT_STREQ(name_of(StopReason::end_of_text), "end_of_text");
  EXPECT_STREQ(name_of(StopReason::context_full), "context_full");
}

}  // namespace
}  // namespace tessera::text
