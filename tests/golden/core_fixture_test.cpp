#include "golden/fixture.h"

#include <limits>

namespace tessera::golden {
namespace {

TEST(Fixture, CloseToSeesWhatIsOff) {
  const Tensor expected = Tensor::from(std::vector<float>{1, -2, 3, 4, -10, 0}, {2, 3});
  EXPECT_TRUE(close_to(expected.clone(), expected, 0));

  Tensor actual = expected.clone();
  actual.data()[4] += 0.002f;
  EXPECT_TRUE(close_to(actual, expected, 3e-4));  // 2e-4 of the largest
  const auto off = close_to(actual, expected, 1e-4);
  EXPECT_FALSE(off);
  EXPECT_NE(std::string(off.message()).find("[1, 1]"), std::string::npos) << off.message();

  actual.data()[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(close_to(actual, expected, 1));
  EXPECT_FALSE(close_to(expected.reshape({3, 2}), expected, 1));
  EXPECT_FALSE(close_to(Tensor(), expected, 1));
}

TEST(Fixture, EveryCaseOpens) {
  const std::vector<std::string> names = Case::all("");
  EXPECT_GE(names.size(), 27u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const Case c(name);
    EXPECT_EQ(c.notes().string("case"), name);
    EXPECT_TRUE(c.config().has("model_type"));
    const Weights weights = c.weights();
    EXPECT_GT(weights.parameters(), 1000);
    EXPECT_FALSE(weights.leftovers().empty());
    for (const Generated& g : c.generated()) {
      EXPECT_FALSE(g.prompt.empty()) << g.name;
      EXPECT_FALSE(g.ids.empty()) << g.name;
      if (!g.hypotheses.empty()) {
        EXPECT_EQ(g.hypotheses[0].ids, g.ids) << g.name;
      }
    }
  }
}

TEST(Fixture, StagesAreNamed) {
  const Case c("gpt2-base");
  EXPECT_TRUE(c.matches("logits", c.get("logits")));
  EXPECT_FALSE(c.matches("hidden.0", c.get("hidden.1")));
  EXPECT_FALSE(c.matches("no.such.stage", c.get("logits")));
  EXPECT_EQ(c.ids("input_ids").size(), 9u);
  EXPECT_EQ(c.generated().size(), 7u);
}

}  // namespace
}  // namespace tessera::golden
