// Ranks and recall beside numpy's (tests/golden/make_retrieval.py).
#include "fusion/retrieval.h"

#include "golden/fixture.h"

namespace tessera::fusion {
namespace {

Tensor rows(const Config& c, const char* key) {
  const std::vector<double> values = c.numbers(key);
  const std::vector<float> floats(values.begin(), values.end());
  const std::int64_t width = c.integer("width");
  return Tensor::from(floats, {std::ssize(floats) / width, width});
}

void compare(const std::vector<std::int64_t>& ranks, const Config& expected) {
  EXPECT_EQ(ranks, expected.integers("ranks"));
  for (const std::int64_t k : {1, 5, 10})
    EXPECT_DOUBLE_EQ(recall_at(ranks, k), expected.number(concat("recall@", k))) << k;
  EXPECT_EQ(median_rank(ranks), expected.integer("median_rank"));
}

TEST(RetrievalScores, AreThoseOfTheReference) {
  const Config cases = Config::read(golden::Case::folder() / "../retrieval.json");
  Context ctx({.threads = 2});
  ASSERT_EQ(cases.size(), 3u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Config c = cases[i];
    const RetrievalRanks ranks =
        retrieval_ranks(ctx, rows(c, "images"), rows(c, "texts"), c.integers("owners"));
    compare(ranks.image_to_text, c.at("image_to_text"));
    compare(ranks.text_to_image, c.at("text_to_image"));
  }
}

}  // namespace
}  // namespace tessera::fusion
