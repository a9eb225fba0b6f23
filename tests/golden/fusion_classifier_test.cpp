// Text classifiers beside HF's.
#include "core/error.h"
#include "fusion/session.h"
#include "golden/fixture.h"
#include "golden/stages.h"

namespace tessera::fusion {
namespace {

using golden::Case;

class TextClassifier : public ::testing::TestWithParam<std::string> {};

TEST_P(TextClassifier, ScoresAsTheReference) {
  const Case c(GetParam());
  const auto model = Model::open(c.dir(), {.precision = Precision::f32, .needs_tokenizer = false});
  EXPECT_EQ(model->unread, std::vector<std::string>());
  EXPECT_EQ(model->labels(), c.notes().strings("labels"));
  Context ctx({.threads = 2});
  EXPECT_TRUE(c.matches("scores", model->score_texts(ctx, {c.ids("first"), c.ids("second")})));
  const Tensor alone = model->score_texts(ctx, {c.ids("second")});
  EXPECT_TRUE(golden::close_to(alone, c.get("scores").slice(1, 2), 1e-4));
  EXPECT_THROW(model->score_texts(ctx, {{}}), ArgumentError);
  EXPECT_THROW(model->score_texts(ctx, {std::vector<std::int32_t>(33, 1)}), ArgumentError);
}

INSTANTIATE_TEST_SUITE_P(Golden, TextClassifier, ::testing::ValuesIn(Case::all("classify-")),
                         golden::case_name);

TEST(TextClassifiers, OtherCheckpointsSayThatTheyAreNone) {
  const auto model = Model::open(Case("gpt2-base").dir(), {.needs_tokenizer = false});
  Context ctx;
  EXPECT_TRUE(model->labels().empty());
  EXPECT_THROW(model->score_texts(ctx, {{1}}), UnsupportedError);
}

}  // namespace
}  // namespace tessera::fusion
