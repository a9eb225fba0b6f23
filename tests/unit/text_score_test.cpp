#include "text/score.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "text/sampler.h"
#include "toy_language_model.h"

namespace tessera::text {
namespace {

Tensor table() {
  Tensor t = Tensor::empty({5, 7});
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data()[i] = static_cast<float>(i * 11 % 13) / 3;
  return t;
}

/// One token at a time, from the definition.
std::vector<float> by_hand(Context& ctx, const LanguageModel& model,
                           std::span<const std::int32_t> ids) {
  std::vector<float> out;
  KvCache cache = model.new_cache();
  const Sequence sequence{&cache, 1};
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const Tensor logits = model.logits(
        ctx, model.forward(ctx, model.embed(ctx, ids.subspan(i, 1)), std::span(&sequence, 1)));
    double total = 0;
    for (std::int64_t v = 0; v < logits.dim(1); ++v)
      total += std::exp(static_cast<double>(logits.data()[v]));
    out.push_back(
        static_cast<float>(static_cast<double>(logits.data()[ids[i + 1]]) - std::log(total)));
  }
  return out;
}

TEST(Score, IsTheLogProbabilityOfEachToken) {
  Context ctx({.threads = 1});
  const ToyLanguageModel model(table(), 200);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 150; ++i) ids.push_back(i * i % 7);  // more rows than are scored at a time
  const auto scores = log_probabilities(ctx, model, ids);
  const auto expected = by_hand(ctx, model, ids);
  ASSERT_EQ(scores.size(), 149u);
  for (std::size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-5) << i;
}

TEST(Score, LongTextsAreCutIntoWindows) {
  Context ctx({.threads = 1});
  const ToyLanguageModel model(table(), 4);
  const std::vector<std::int32_t> ids{1, 2, 3, 4, 5, 6, 0, 1, 2, 3};
  const auto scores = log_probabilities(ctx, model, ids);
  std::vector<float> expected;
  for (const auto& [at, count] : {std::pair{0, 5}, {4, 5}, {8, 2}}) {
    const auto part = by_hand(ctx, model, std::span(ids).subspan(at, count));
    expected.insert(expected.end(), part.begin(), part.end());
  }
  ASSERT_EQ(scores.size(), 9u);
  for (std::size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-5) << i;
  EXPECT_LE(model.longest, 4);
}

TEST(Score, PerplexityOfAChoiceAmongEqualsIsTheirNumber) {
  Context ctx({.threads = 1});
  const ToyLanguageModel model(Tensor::zeros({3, 7}));
  const std::vector<std::int32_t> ids{1, 2, 3, 4};
  EXPECT_NEAR(perplexity(log_probabilities(ctx, model, ids)), 7, 1e-5);
}

TEST(Score, RefusesWhatItCantScore) {
  Context ctx({.threads = 1});
  const ToyLanguageModel model(table(), 64);
  const std::vector<std::int32_t> one{1}, two{1, 2};
  EXPECT_THROW(log_probabilities(ctx, model, one), ArgumentError);
  EXPECT_THROW(log_probabilities(ctx, model, two, 1), ArgumentError);
  EXPECT_THROW(log_probabilities(ctx, model, two, 65), ArgumentError);
}

}  // namespace
}  // namespace tessera::text
