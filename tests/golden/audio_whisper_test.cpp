#include <algorithm>

#include "audio/tower.h"
#include "golden/fixture.h"
#include "golden/stages.h"

namespace tessera::audio {
namespace {

using golden::Case;

std::vector<std::string> cases() {
  std::vector<std::string> names = Case::all("whisper-");
  std::erase_if(names,
                [](const std::string& name) { return !Case(name).has("audio.last_hidden"); });
  return names;
}

class WhisperEncoder : public ::testing::TestWithParam<std::string> {};

TEST_P(WhisperEncoder, EveryStageMatchesTheReference) {
  const Case c(GetParam());
  Context ctx;
  const auto tower = load_tower(c.config(), c.weights().at("model.encoder"));
  golden::StageCheck stages(ctx, c, "audio.");
  EXPECT_TRUE(c.matches("audio.last_hidden", tower->encode(ctx, golden::time_first(c.get("mel")))));
  EXPECT_GE(stages.finish(), 2);
}

INSTANTIATE_TEST_SUITE_P(Golden, WhisperEncoder, ::testing::ValuesIn(cases()), golden::case_name);

}  // namespace
}  // namespace tessera::audio
