// Prompts that are continued side by side.
#include <gtest/gtest.h>

#include <map>

#include "core/error.h"
#include "text/generate.h"
#include "unit/toy_language_model.h"

namespace tessera::text {
namespace {

constexpr std::int64_t kVocab = 12;

/// Numbers in [-2, 2) without a pattern.
Tensor random_table() {
  Random random(3);
  Tensor table = Tensor::empty({97, kVocab});
  for (std::int64_t i = 0; i < table.numel(); ++i)
    table.data()[i] = static_cast<float>(4 * random.uniform() - 2);
  return table;
}

class GenerateAll : public ::testing::Test {
 protected:
  GenerateAll() {
    for (std::int32_t i = 0; i < 7; ++i) {
      std::vector<std::int32_t> prompt(static_cast<std::size_t>(1 + i % 4), i);
      prompt.front() = (3 * i + 1) % kVocab;
      SamplingOptions options;
      options.max_new_tokens = 4 + 3 * (i % 3);
      options.do_sample = i % 3 == 1;
      options.num_beams = i % 3 == 2 ? 3 : 1;
      options.num_return_sequences = i % 3 == 0 ? 1 : 2;
      options.seed = static_cast<std::uint64_t>(i);
      prompts_.push_back(prompt);
      options_.push_back(options);
    }
  }

  GenerateInput input(std::size_t i) {
    return {model_.new_cache(), model_.embed(ctx_, prompts_[i]), prompts_[i]};
  }

  /// Runs the prompts; the results by number, as far as there are some.
  std::map<std::size_t, std::vector<Generated>> run(
      std::int64_t together, const std::function<void(std::size_t, GenerateJob&)>& change = {}) {
    std::map<std::size_t, std::vector<Generated>> results;
    std::size_t at = 0;
    generate_all(ctx_, model_, nullptr, together, [&]() -> std::optional<GenerateJob> {
      if (at == prompts_.size()) return std::nullopt;
      const std::size_t own = at++;
      GenerateJob job{input(own), options_[own], {}, {}, {}};
      job.on_result = [&results, own](std::vector<Generated> r) { results[own] = std::move(r); };
      if (change) change(own, job);
      return job;
    });
    return results;
  }

  Context ctx_;
  ToyLanguageModel model_{random_table()};
  std::vector<std::vector<std::int32_t>> prompts_;
  std::vector<SamplingOptions> options_;
};

TEST_F(GenerateAll, GivesEachWhatItGetsAlone) {
  for (const std::int64_t together : {1, 2, 3, 64}) {
    const auto results = run(together);
    ASSERT_EQ(results.size(), prompts_.size());
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      const std::vector<Generated> alone = generate(ctx_, model_, nullptr, input(i), options_[i]);
      ASSERT_EQ(results.at(i).size(), alone.size());
      for (std::size_t j = 0; j < alone.size(); ++j) {
        EXPECT_EQ(results.at(i)[j].ids, alone[j].ids) << together << ", prompt " << i;
        EXPECT_EQ(results.at(i)[j].score, alone[j].score);
        EXPECT_EQ(results.at(i)[j].stop_reason, alone[j].stop_reason);
      }
    }
  }
}

TEST_F(GenerateAll, SharesThePassesOfTheModel) {
  for (SamplingOptions& options : options_) {
    options = {};
    options.max_new_tokens = 10;
  }
  run(7);
  // 7 prompts of 1 to 4 rows, at most 8 rows a pass, and 9 steps
  EXPECT_EQ(model_.forwards, 3 + 9);
  model_.forwards = 0;
  run(1);
  EXPECT_EQ(model_.forwards, 7 * 10);
}

TEST_F(GenerateAll, AnErrorIsThatOfItsJob) {
  prompts_[2].assign(200, 1);  // longer than the context
  std::vector<std::size_t> failed;
  const auto results = run(3, [&](std::size_t i, GenerateJob& job) {
    job.on_error = [&failed, i](const std::exception_ptr& error) {
      EXPECT_THROW(std::rethrow_exception(error), ArgumentError);
      failed.push_back(i);
    };
  });
  EXPECT_EQ(failed, (std::vector<std::size_t>{2}));
  EXPECT_EQ(results.size(), prompts_.size() - 1);
  EXPECT_THROW(run(3), ArgumentError);  // where nobody takes it
  EXPECT_THROW(run(0), ArgumentError);
}

TEST_F(GenerateAll, OneMayBeCancelledAndOthersGoOn) {
  int asked = 0;
  const auto results = run(7, [&](std::size_t i, GenerateJob& job) {
    if (i == 3) job.hooks.cancelled = [&asked] { return ++asked > 2; };
  });
  ASSERT_EQ(results.size(), prompts_.size());
  for (const auto& [i, result] : results) {
    EXPECT_EQ(result.front().stop_reason == StopReason::cancelled, i == 3) << i;
  }
  EXPECT_EQ(results.at(3).front().ids.size(), 2u);
}

}  // namespace
}  // namespace tessera::text
