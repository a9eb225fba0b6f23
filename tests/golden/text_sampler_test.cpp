// Logits processors, greedy search and beam search beside HF generate() (make_sampler.py).
#include <algorithm>
#include <limits>
#include <string>

#include "golden/fixture.h"
#include "text/generate.h"
#include "unit/toy_language_model.h"

namespace tessera::text {
namespace {

using golden::to_ids;

std::string fixture(const std::string& name) {
  return TESSERA_SOURCE_DIR "/tests/data/sampler/" + name;
}

/// What is left of the logits, -infinity elsewhere.
std::vector<float> filtered(const SamplingOptions& options, const std::vector<float>& logits) {
  std::vector<float> out(logits.size(), -std::numeric_limits<float>::infinity());
  const auto end_tokens = std::max<std::size_t>(1, options.stop_tokens.size());
  const auto kept =
      warp_logits(options, logits, options.num_beams > 1 ? static_cast<int>(1 + end_tokens) : 1);
  for (const Candidate& c : kept) out[static_cast<std::size_t>(c.id)] = c.logit;
  return out;
}

TEST(GoldenSampler, ProcessorsAndFiltersAreHfs) {
  const Config cases = Config::read(fixture("processors.json")).at("cases");
  const Weights tensors = Weights::open(fixture("processors.safetensors"));
  const Tensor before = tensors.get("before"), after = tensors.get("after");
  ASSERT_EQ(before.dim(0), static_cast<std::int64_t>(cases.size()));
  ASSERT_GT(cases.size(), 150u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto prompt = to_ids(cases[i].integers("prompt"));
    const auto generated = to_ids(cases[i].integers("generated"));
    SamplingOptions options = SamplingOptions::from_config(cases[i].at("options"));
    options.presence_penalty = cases[i].number("presence", 0);
    options.frequency_penalty = cases[i].number("frequency", 0);
    options.validate(before.dim(1));
    const auto length = static_cast<std::int64_t>(prompt.size());
    if (options.min_new_tokens == 0) options.min_new_tokens = options.min_length - length;

    std::vector<float> actual = before[static_cast<std::int64_t>(i)].to_vector();
    process_logits(options, prompt, generated, actual);
    if (options.do_sample) actual = filtered(options, actual);
    const std::vector<float> expected = after[static_cast<std::int64_t>(i)].to_vector();
    for (std::size_t id = 0; id < expected.size(); ++id) {
      ASSERT_FLOAT_EQ(actual[id], expected[id]) << "id " << id << " of " << cases[i].dump();
    }
  }
}

TEST(GoldenSampler, SearchesAreHfs) {
  const Config cases = Config::read(fixture("generate.json")).at("cases");
  const Weights tensors = Weights::open(fixture("generate.safetensors"));
  Context ctx;
  std::size_t beams = 0, ended = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string table = "table." + std::to_string(cases[i].integer("table"));
    const ToyLanguageModel model(tensors.get(table));
    const auto prompt = to_ids(cases[i].integers("prompt"));
    const auto options = SamplingOptions::from_config(cases[i].at("options"));
    const std::vector<Generated> actual = generate(
        ctx, model, nullptr, {model.new_cache(), model.embed(ctx, prompt), prompt}, options);
    const Config expected = cases[i].at("results");
    ASSERT_EQ(actual.size(), expected.size()) << cases[i].dump();
    for (std::size_t k = 0; k < expected.size(); ++k) {
      const bool end = expected[k].boolean("ended", false);
      ASSERT_EQ(actual[k].ids, to_ids(expected[k].integers("ids"))) << k << cases[i].dump();
      ASSERT_EQ(actual[k].stop_reason, end ? StopReason::end_of_text : StopReason::max_tokens);
      ended += end;
      if (!expected[k].has("score")) continue;
      const double score = expected[k].number("score");
      ASSERT_NEAR(actual[k].score, score, 1e-5 * std::max(1.0, std::abs(score)))
          << k << cases[i].dump();
      ++beams;
    }
  }
  EXPECT_GT(cases.size(), 70u);
  EXPECT_GT(beams, 100u);
  EXPECT_GT(ended, 20u);
}

}  // namespace
}  // namespace tessera::text
