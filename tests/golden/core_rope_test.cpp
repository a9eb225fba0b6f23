#include "core/layers.h"
#include "golden/fixture.h"

namespace tessera {
namespace {

// Published shapes at positions up to 131,071: what the tiny checkpoints can't reach.
TEST(RopeGolden, AnglesOfPublishedShapesMatchTheReference) {
  const golden::Case golden("llama-llama3-rope");
  const Config rope = golden.notes().at("rope");
  const std::vector<std::int64_t> positions = rope.integers("positions");
  const Config configs = rope.at("configs");
  ASSERT_EQ(configs.size(), 4u);
  Context ctx;
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const Rope layer(configs[i], configs[i].integer("head_dim"));
    EXPECT_TRUE(golden.matches("rope." + std::to_string(i), layer.angles(ctx, positions)));
  }
}

}  // namespace
}  // namespace tessera
