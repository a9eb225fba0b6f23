// Beams part and share what they have seen; each must go on from its own past.
#include <gtest/gtest.h>

#include "golden/fixture.h"
#include "text/generate.h"
#include "text/score.h"

namespace tessera::text {
namespace {

TEST(BeamCaches, HoldTheTokensOfTheirBeams) {
  for (const char* family : {"gpt2-base", "llama-published", "llama-tied-grouped"}) {
    const golden::Case checkpoint(family);
    const auto model = load_language_model(checkpoint.config(), checkpoint.weights());
    Context ctx({.threads = 2});
    const std::vector<std::int32_t> prompt = {1, 2, 3};
    for (const std::int64_t count : {2, 5}) {
      SamplingOptions options;
      options.max_new_tokens = 24;
      options.num_beams = options.num_return_sequences = count;
      options.stop_tokens = {7, 11};
      options.early_stopping = SamplingOptions::EarlyStopping::never;
      options.log_probabilities = true;
      const auto results = generate(
          ctx, *model, nullptr, {model->new_cache(), model->embed(ctx, prompt), prompt}, options);
      ASSERT_EQ(std::ssize(results), count);
      for (const Generated& result : results) {
        ASSERT_GT(result.ids.size(), 0u);
        std::vector<std::int32_t> all = prompt;
        all.insert(all.end(), result.ids.begin(), result.ids.end());
        const auto expected = log_probabilities(ctx, *model, all);
        for (std::size_t i = 0; i < result.ids.size(); ++i) {
          EXPECT_NEAR(result.log_probabilities[i], expected[prompt.size() - 1 + i], 2e-4)
              << family << ", " << count << " beams, token " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera::text
