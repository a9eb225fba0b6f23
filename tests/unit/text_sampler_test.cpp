// Choosing tokens: what HF has no twin for, distributions, ties, limits, options.
#include "text/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace tessera::text {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplingOptions from(const std::string& json) {
  return SamplingOptions::from_config(Config::parse(json, "generation_config.json"));
}

std::vector<std::int32_t> kept(const SamplingOptions& options, const std::vector<float>& logits) {
  std::vector<std::int32_t> ids;
  for (const Candidate& c : warp_logits(options, logits)) ids.push_back(c.id);
  return ids;
}

TEST(Sampler, ArgmaxTakesTheLowestOfEquals) {
  EXPECT_EQ(argmax(std::vector<float>{0, 3, 1, 3}), 1);
  EXPECT_EQ(argmax(std::vector<float>{-kInfinity, std::nanf(""), -7}), 2);
  EXPECT_THROW(argmax(std::vector<float>{-kInfinity, -kInfinity}), ArgumentError);
  EXPECT_THROW(argmax(std::vector<float>{}), ArgumentError);
}

TEST(Sampler, DrawsWithTheProbabilitiesOfSoftmax) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.0625, 0.05, 0.0125};
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < p.size(); ++i) {
    candidates.push_back({static_cast<std::int32_t>(10 * i), static_cast<float>(std::log(p[i]))});
  }
  constexpr int kDraws = 100000;
  std::vector<int> counts(p.size());
  Random random(7);
  for (int i = 0; i < kDraws; ++i) {
    ++counts.at(static_cast<std::size_t>(draw(candidates, random.uniform())) / 10);
  }
  double chi_square = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 20.5);  // 99.9 % of chi-square with 5 degrees of freedom
  EXPECT_EQ(draw(candidates, 0), 0);
  EXPECT_EQ(draw(candidates, 1 - 0x1p-53), 50);
  EXPECT_THROW(draw({}, 0.5), ArgumentError);
}

TEST(Sampler, RandomNumbersAreTheSameEverywhere) {
  // The 10000th number of a default mt19937_64 is laid down by the C++ standard.
  Random random(5489);
  for (int i = 0; i < 9999; ++i) random.uniform();
  EXPECT_EQ(random.uniform(), static_cast<double>(9981545732273789042u >> 11) * 0x1p-53);
}

TEST(Sampler, FiltersWorkOnLargeVocabularies) {
  std::vector<float> logits(50000);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>((i * 7919) % 50000) / 5000;  // all different
  }
  SamplingOptions options;
  options.do_sample = true;
  options.top_k = 3;
  for (const Candidate& c : warp_logits(options, logits)) EXPECT_GE(c.logit, 49997 / 5000.f);
  EXPECT_EQ(kept(options, logits).size(), 3u);
  // The share of the n largest of exp(i / 5000) is about 1 - exp(-n / 5000).
  options.top_k = 0;
  options.top_p = 0.5;
  EXPECT_NEAR(static_cast<double>(kept(options, logits).size()), 5000 * std::log(2), 3);
  options.top_p = 1.0;
  options.min_p = 0.5;
  EXPECT_NEAR(static_cast<double>(kept(options, logits).size()), 5000 * std::log(2), 3);
}

TEST(Sampler, TopPPrefersTheLowestOfEquals) {
  SamplingOptions options;
  options.top_k = 0;
  options.top_p = 0.6;
  EXPECT_EQ(kept(options, {1, 1, 1, 1}), (std::vector<std::int32_t>{0, 1, 2}));
}

TEST(Sampler, PenaltiesSeeOnlyTheLastTokens) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  options.frequency_penalty = 1;
  options.repeat_last_n = 2;
  std::vector<float> logits(6, 4.0f);
  const std::vector<std::int32_t> prompt = {0, 1}, generated = {2, 3, 3};
  process_logits(options, prompt, generated, logits);
  EXPECT_EQ(logits, (std::vector<float>{4, 4, 4, 0, 4, 4}));
  logits.assign(6, 4.0f);
  options.repeat_last_n = 4;
  process_logits(options, prompt, generated, logits);
  EXPECT_EQ(logits, (std::vector<float>{4, 2, 1, 0, 4, 4}));
}

TEST(Sampler, IdsOutsideOfTheVocabularyCountAsNoToken) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  options.no_repeat_ngram_size = 1;
  options.suppress_tokens = {-1, 99};
  std::vector<float> logits = {1, 1};
  process_logits(options, std::vector<std::int32_t>{-5, 2, 1000}, {}, logits);
  EXPECT_EQ(logits, (std::vector<float>{1, 1}));
}

TEST(Sampler, LogSumExp) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1000, 1000, -kInfinity}), 1000 + std::log(2), 1e-9);
  EXPECT_EQ(log_sum_exp(std::vector<float>{-kInfinity}), -kInfinity);
}

TEST(Sampler, Softmax) {
  const std::vector<double> shares = softmax(std::vector<float>{1000, 999, -kInfinity});
  ASSERT_EQ(shares.size(), 3u);
  EXPECT_NEAR(shares[0], 1 / (1 + std::exp(-1.0)), 1e-12);
  EXPECT_NEAR(shares[1], 1 / (1 + std::exp(1.0)), 1e-12);
  EXPECT_EQ(shares[2], 0);
  EXPECT_TRUE(softmax({}).empty());
}

TEST(SamplingOptions, ReadsGenerationConfig) {
  const SamplingOptions o = from(R"({
    "do_sample": true, "temperature": 0.5, "top_k": 0, "top_p": 0.9, "min_p": 0.1,
    "repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "num_beams": 4, "length_penalty": 0.7,
    "early_stopping": "never", "num_return_sequences": 2, "max_length": 20, "max_new_tokens": 7,
    "min_length": 3, "min_new_tokens": 2, "eos_token_id": [5, 6], "suppress_tokens": [1],
    "begin_suppress_tokens": [2, 3], "bad_words_ids": [[4], [5, 6]], "forced_bos_token_id": 8,
    "forced_eos_token_id": 9, "sequence_bias": [[[7], -1.5]], "stop_strings": "end",
    "typical_p": 1.0, "penalty_alpha": null, "transformers_version": "5.0"})");
  EXPECT_TRUE(o.do_sample);
  EXPECT_EQ(o.temperature, 0.5);
  EXPECT_EQ(o.top_k, 0);
  EXPECT_EQ(o.top_p, 0.9);
  EXPECT_EQ(o.min_p, 0.1);
  EXPECT_EQ(o.repetition_penalty, 1.2);
  EXPECT_EQ(o.no_repeat_ngram_size, 3);
  EXPECT_EQ(o.num_beams, 4);
  EXPECT_EQ(o.length_penalty, 0.7);
  EXPECT_EQ(o.early_stopping, SamplingOptions::EarlyStopping::never);
  EXPECT_EQ(o.num_return_sequences, 2);
  EXPECT_EQ(o.max_length, 20);
  EXPECT_EQ(o.max_new_tokens, 7);
  EXPECT_EQ(o.min_length, 3);
  EXPECT_EQ(o.min_new_tokens, 2);
  EXPECT_EQ(o.stop_tokens, (std::vector<std::int32_t>{5, 6}));
  EXPECT_EQ(o.suppress_tokens, (std::vector<std::int32_t>{1}));
  EXPECT_EQ(o.begin_suppress_tokens, (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(o.bad_words, (std::vector<std::vector<std::int32_t>>{{4}, {5, 6}}));
  EXPECT_EQ(o.forced_bos_token, 8);
  EXPECT_EQ(o.forced_eos_tokens, (std::vector<std::int32_t>{9}));
  EXPECT_EQ(o.logit_bias, (std::map<std::int32_t, double>{{7, -1.5}}));
  EXPECT_EQ(o.stop_strings, (std::vector<std::string>{"end"}));
  EXPECT_NO_THROW(o.validate(10));
}

TEST(SamplingOptions, LaterValuesGoOverEarlierOnes) {
  SamplingOptions o = from(R"({"eos_token_id": 5, "num_beams": 4, "early_stopping": true})");
  o.apply(Config::parse(R"({"num_beams": 1, "early_stopping": false})", "task"));
  EXPECT_EQ(o.stop_tokens, (std::vector<std::int32_t>{5}));
  EXPECT_EQ(o.num_beams, 1);
  EXPECT_EQ(o.early_stopping, SamplingOptions::EarlyStopping::no);
}

TEST(SamplingOptions, RefusesWhatItCantDo) {
  EXPECT_THROW(from(R"({"typical_p": 0.5})"), UnsupportedError);
  EXPECT_THROW(from(R"({"guidance_scale": 1.5})"), UnsupportedError);
  EXPECT_THROW(from(R"({"num_beam_groups": 2})"), UnsupportedError);
  EXPECT_THROW(from(R"({"renormalize_logits": true})"), UnsupportedError);
  EXPECT_THROW(from(R"({"exponential_decay_length_penalty": [5, 1.1]})"), UnsupportedError);
  EXPECT_THROW(from(R"({"sequence_bias": [[[7, 8], -1.5]]})"), UnsupportedError);
}

TEST(SamplingOptions, RefusesWrongTypes) {
  EXPECT_THROW(from(R"({"top_k": "many"})"), FormatError);
  EXPECT_THROW(from(R"({"early_stopping": "always"})"), FormatError);
  EXPECT_THROW(from(R"({"early_stopping": 3})"), FormatError);
  EXPECT_THROW(from(R"({"eos_token_id": [1, "x"]})"), FormatError);
  EXPECT_THROW(from(R"({"eos_token_id": 99999999999})"), FormatError);
  EXPECT_THROW(from(R"({"bad_words_ids": [[]]})"), FormatError);
  EXPECT_THROW(from(R"({"bad_words_ids": [5]})"), FormatError);
  EXPECT_THROW(from(R"({"sequence_bias": [[[7]]]})"), FormatError);
  EXPECT_THROW(from(R"({"forced_bos_token_id": []})"), FormatError);
}

/// The message of validate() after `change`, "" where it is content.
template <class Change>
std::string complaint(const Change& change) {
  SamplingOptions o;
  change(o);
  try {
    o.validate(100);
  } catch (const ArgumentError& e) {
    return e.what();
  }
  return "";
}

TEST(SamplingOptions, RangesAreChecked) {
  using O = SamplingOptions;
  EXPECT_EQ(complaint([](O&) {}), "");
  EXPECT_EQ(complaint([](O& o) { o.top_p = 0; }), "top_p has to be in (0, 1], but is 0");
  EXPECT_NE(complaint([](O& o) { o.top_p = std::nan(""); }), "");
  EXPECT_NE(complaint([](O& o) { o.min_p = 1.1; }), "");
  EXPECT_NE(complaint([](O& o) { o.temperature = -1; }), "");
  EXPECT_EQ(complaint([](O& o) { o.top_k = -2; }), "top_k has to be at least 0, but is -2");
  EXPECT_NE(complaint([](O& o) { o.repetition_penalty = 0; }), "");
  EXPECT_NE(complaint([](O& o) { o.presence_penalty = HUGE_VAL; }), "");
  EXPECT_NE(complaint([](O& o) { o.frequency_penalty = HUGE_VAL; }), "");
  EXPECT_NE(complaint([](O& o) { o.length_penalty = HUGE_VAL; }), "");
  EXPECT_NE(complaint([](O& o) { o.repeat_last_n = -1; }), "");
  EXPECT_NE(complaint([](O& o) { o.no_repeat_ngram_size = -1; }), "");
  EXPECT_NE(complaint([](O& o) { o.max_new_tokens = -1; }), "");
  EXPECT_NE(complaint([](O& o) { o.min_new_tokens = -1; }), "");
  EXPECT_EQ(complaint([](O& o) { o.num_beams = 0; }),
            "num_beams has to be at least 1 and at most 1024, but is 0");
  EXPECT_NE(complaint([](O& o) { o.num_return_sequences = 2; }), "") << "greedy gives one";
  EXPECT_NE(complaint([](O& o) { o.num_beams = 2, o.num_return_sequences = 3; }), "");
  EXPECT_EQ(complaint([](O& o) { o.do_sample = true, o.num_return_sequences = 3; }), "");
  EXPECT_EQ(complaint([](O& o) { o.logit_bias[100] = 1; }),
            "logit_bias names token 100, but the vocabulary is [0, 100)");
  EXPECT_NE(complaint([](O& o) { o.forced_bos_token = -1; }), "");
  EXPECT_NE(complaint([](O& o) { o.forced_eos_tokens = {100}; }), "");
  EXPECT_NE(complaint([](O& o) { o.bad_words = {{}}; }), "");
  EXPECT_NE(complaint([](O& o) { o.stop_strings = {""}; }), "");
}

/// Pearson's statistic of 20000 draws from `candidates` against softmax(wanted).
double chi_square(const std::vector<Candidate>& candidates, const std::vector<Candidate>& wanted) {
  constexpr int draws = 20000;
  std::map<std::int32_t, int> counts;
  Random random(5);
  for (int i = 0; i < draws; ++i) ++counts[draw(candidates, random.uniform())];
  double total = 0, statistic = 0;
  for (const Candidate& c : wanted) total += std::exp(static_cast<double>(c.logit));
  for (const Candidate& c : wanted) {
    const double expected = draws * std::exp(static_cast<double>(c.logit)) / total;
    statistic += std::pow(counts[c.id] - expected, 2) / expected;
  }
  return statistic;
}

TEST(Sampler, DrawsAsOftenAsTheSoftmaxSays) {
  std::vector<float> logits;
  for (int i = 0; i < 12; ++i) logits.push_back(static_cast<float>(0.3 * ((i * 5) % 12)));
  SamplingOptions options;
  options.do_sample = true;
  const auto at = [&](double temperature, std::int64_t top_k) {
    options.temperature = temperature;
    options.top_k = top_k;
    return warp_logits(options, logits);
  };
  // 11 degrees of freedom: 31.3 is passed once in a thousand times; 18.5 for 4 degrees
  for (const double t : {0.7, 1.0, 2.0}) EXPECT_LT(chi_square(at(t, 0), at(t, 0)), 31.3) << t;
  EXPECT_EQ(at(1, 5).size(), 5u);
  EXPECT_LT(chi_square(at(1, 5), at(1, 5)), 18.5);
  EXPECT_GT(chi_square(at(1.2, 0), at(1, 0)), 100) << "a wrong temperature has to show";
}

}  // namespace
}  // namespace tessera::text
