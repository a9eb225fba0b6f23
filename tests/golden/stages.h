#pragma once
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "core/context.h"
#include "golden/fixture.h"

namespace tessera::golden {

/// While it lives, the intermediate results that the context shows and the case knows are compared,
/// each name once. Towers and later steps show results under the same names: with `whole_prompt`,
/// only those of the golden shape count.
class StageCheck {
 public:
  StageCheck(Context& ctx, const Case& c, std::string prefix = "", bool whole_prompt = false)
      : ctx_(ctx) {
    ctx_.observer = [this, &c, prefix = std::move(prefix), whole_prompt](const std::string& name,
                                                                         const Tensor& value) {
      if (!c.has(prefix + name) || seen_.count(name)) return;
      if (whole_prompt && value.shape() != c.get(prefix + name).shape()) return;
      seen_.insert(name);
      EXPECT_TRUE(c.matches(prefix + name, value));
    };
  }
  ~StageCheck() { ctx_.observer = nullptr; }
  StageCheck(const StageCheck&) = delete;
  StageCheck& operator=(const StageCheck&) = delete;
  /// Stops comparing; how many stages were compared.
  int finish() {
    ctx_.observer = nullptr;
    return static_cast<int>(seen_.size());
  }

 private:
  Context& ctx_;
  std::set<std::string> seen_;
};

/// "gpt2-base" -> "gpt2_base", as GoogleTest wants names.
inline std::string case_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

/// The reference keeps the stop token where it was produced; we leave it out.
inline std::vector<std::int32_t> without_stop(std::vector<std::int32_t> ids,
                                              const std::vector<std::int32_t>& stop) {
  if (!ids.empty() && std::count(stop.begin(), stop.end(), ids.back())) ids.pop_back();
  return ids;
}

/// Compares results (anything with .ids and .score) with the reference's: ids exactly, scores of
/// beams to 1e-4.
template <class Results>
void expect_generated(const Results& results, const Generated& g,
                      const std::vector<std::int32_t>& stop) {
  ASSERT_FALSE(results.empty());
  EXPECT_EQ(results.front().ids, without_stop(g.ids, stop)) << g.name;
  if (g.hypotheses.empty()) return;
  ASSERT_EQ(results.size(), g.hypotheses.size()) << g.name;
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_EQ(results[i].ids, without_stop(g.hypotheses[i].ids, stop))
        << g.name << ", result " << i;
    EXPECT_NEAR(results[i].score, g.hypotheses[i].score, 1e-4) << g.name << ", result " << i;
  }
}

}  // namespace tessera::golden
