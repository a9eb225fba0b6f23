// Prompts of which only the last rows are wanted, beside all rows of them.
#include <map>

#include "core/tape.h"
#include "core/weights.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "text/language_model.h"

namespace tessera::text {
namespace {

using golden::Case;
using Ids = std::vector<std::int32_t>;

/// Sequences that are given rows together, each with tokens that its cache has seen before.
class Prompts {
 public:
  struct Prompt {
    Ids before, ids;
  };
  Prompts(Context& ctx, const LanguageModel& model, const Tensor& memory,
          const std::vector<Prompt>& prompts)
      : ctx_(ctx), model_(model), caches_(prompts.size()) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      caches_[i] = model.new_cache();
      if (memory) model.set_memory(ctx, memory, caches_[i]);
      const auto& [before, ids] = prompts[i];
      const Sequence seen{&caches_[i], std::ssize(before)};
      if (!before.empty()) model.forward(ctx, model.embed(ctx, before), std::span(&seen, 1));
      sequences_.push_back({&caches_[i], std::ssize(ids)});
      ids_.insert(ids_.end(), ids.begin(), ids.end());
    }
  }
  Prompts(const Prompts&) = delete;
  Prompts& operator=(const Prompts&) = delete;

  Tensor forward(Outputs outputs) {
    return model_.forward(ctx_, model_.embed(ctx_, ids_), sequences_, outputs);
  }
  /// The last rows of what forward(every_row) gave.
  Tensor last_of(const Tensor& all) const {
    Ids rows;
    std::int64_t end = 0;
    for (const Sequence& s : sequences_)
      rows.push_back(static_cast<std::int32_t>((end += s.rows) - 1));
    return gather_rows(ctx_, all, rows);
  }
  /// What the next tokens become: to be the same to the bit, caches have to be.
  std::vector<float> continued() {
    const Ids next(caches_.size(), 3);
    for (Sequence& s : sequences_) s.rows = 1;
    return model_.forward(ctx_, model_.embed(ctx_, next), sequences_).to_vector();
  }

 private:
  Context& ctx_;
  const LanguageModel& model_;
  std::vector<KvCache> caches_;
  std::vector<Sequence> sequences_;
  Ids ids_;
};

/// What last rows may differ by from those of all rows: few rows and single queries are summed up
/// in another order, and where numbers are rounded, they are rounded more finely than many. Queries
/// that meet keys of 8 bits one by one are rounded, too.
double tolerance_of(Precision precision, CacheNumbers numbers = CacheNumbers::automatic) {
  if (precision == Precision::int8) return 0.03;
  if (precision == Precision::bf16) return 0.01;
  return numbers == CacheNumbers::int8 ? 1e-3 : 1e-6;
}
constexpr auto kPrecisions = {Precision::f32, Precision::bf16, Precision::int8};

class LastRows : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  Ids ids_ = case_.ids("input_ids");
  Tensor memory_ = case_.has("memory") ? case_.get("memory") : Tensor();
  std::unique_ptr<LanguageModel> model_ = load(Precision::f32);
  Context ctx_{{.threads = 2}};

  std::unique_ptr<LanguageModel> load(Precision precision,
                                      CacheNumbers numbers = CacheNumbers::automatic) {
    return load_language_model(case_.config(), case_.weights().with(precision).with(numbers));
  }
  Ids part(std::int64_t begin, std::int64_t end) const {
    return {ids_.begin() + begin, ids_.begin() + end};
  }
  std::vector<Prompts::Prompt> prompts() const {
    return {{{}, part(0, 6)}, {part(0, 3), part(3, 8)}, {{}, part(2, 3)}, {part(1, 5), part(5, 6)}};
  }
  Prompts started(const std::vector<Prompts::Prompt>& prompts) {
    return {ctx_, *model_, memory_, prompts};
  }
};

TEST_P(LastRows, AreThoseOfAllRows) {
  for (const Precision precision : kPrecisions) {
    for (const CacheNumbers numbers :
         {CacheNumbers::automatic, CacheNumbers::f32, CacheNumbers::bf16, CacheNumbers::int8}) {
      SCOPED_TRACE(
          concat("precision ", static_cast<int>(precision), ", cache ", static_cast<int>(numbers)));
      model_ = load(precision, numbers);
      Prompts some = started(prompts()), all = started(prompts());
      EXPECT_TRUE(golden::close_to(some.forward(Outputs::last_rows),
                                   all.last_of(all.forward(Outputs::every_row)),
                                   tolerance_of(precision, numbers)));
      EXPECT_EQ(some.continued(), all.continued()) << "the caches differ";
    }
  }
}

TEST_P(LastRows, AreThoseOfEachPromptAlone) {
  // Up to 8 rows are rounded alike, however many there are.
  const std::vector<Prompts::Prompt> few = {{part(0, 2), part(2, 5)}, {{}, part(1, 5)}};
  for (const Precision precision : {Precision::f32, Precision::int8}) {
    model_ = load(precision);
    const Tensor together = started(few).forward(Outputs::last_rows);
    ASSERT_EQ(together.dim(0), 2);
    for (std::int64_t i = 0; i < 2; ++i) {
      const Tensor alone = started({few[static_cast<std::size_t>(i)]}).forward(Outputs::last_rows);
      EXPECT_TRUE(golden::close_to(together.slice(i, i + 1), alone, 1e-5));
    }
  }
}

TEST_P(LastRows, WhoLooksIsShownAllRows) {
  Prompts all = started(prompts()), some = started(prompts()), others = started(prompts());
  const std::vector<float> expected = all.last_of(all.forward(Outputs::every_row)).to_vector();
  std::map<std::string, std::int64_t> rows;
  ctx_.observer = [&](const std::string& name, const Tensor& x) { rows[name] = x.dim(0); };
  EXPECT_EQ(some.forward(Outputs::last_rows).to_vector(), expected);
  ctx_.observer = nullptr;
  EXPECT_GE(rows.size(), 3u);
  for (const auto& [name, count] : rows) EXPECT_EQ(count, 13) << name;

  std::map<std::string, std::int64_t> inputs;
  ctx_.input_observer = [&](std::span<const std::string> matrices, const Tensor& x) {
    inputs[matrices.front()] = x.dim(0);
  };
  EXPECT_EQ(others.forward(Outputs::last_rows).to_vector(), expected);
  ctx_.input_observer = nullptr;
  EXPECT_GE(inputs.size(), 8u);
  for (const auto& [name, count] : inputs) EXPECT_EQ(count, 13) << name;
}

TEST_P(LastRows, ATapeRecordsAllRows) {
  model_ = load(Precision::in_place);
  const std::vector<Prompts::Prompt> whole = {{{}, part(0, 6)}, {{}, part(3, 8)}};
  for (const bool keeps_inputs_only : {false, true}) {
    Tape tape;
    tape.keeps_inputs_only = keeps_inputs_only;
    const TapeScope recorded(ctx_, &tape);
    Prompts some = started(whole), all = started(whole);
    tape.set_seed(1);
    const Tensor every = all.forward(Outputs::every_row);
    tape.set_seed(1);
    EXPECT_EQ(some.forward(Outputs::last_rows).to_vector(), all.last_of(every).to_vector());
  }
}

TEST_P(LastRows, OfNoRowsThereAreNone) {
  EXPECT_THROW(started({{{}, part(0, 2)}, {}}).forward(Outputs::last_rows), ArgumentError);
}

INSTANTIATE_TEST_SUITE_P(Gpt2, LastRows, ::testing::ValuesIn(Case::all("gpt2")), golden::case_name);
INSTANTIATE_TEST_SUITE_P(Llama, LastRows, ::testing::ValuesIn(Case::all("llama")),
                         golden::case_name);

/// So many tokens that attention of prompts may be in 8 bits, and that of one query is in parts.
TEST(LastRowsOfLongPrompts, AreThoseOfAllRows) {
  const Case c("llama-tied-grouped");
  std::string text = c.config().dump();
  const std::string positions = R"("max_position_embeddings":32)";
  ASSERT_NE(text.find(positions), std::string::npos) << text;
  text.replace(text.find(positions), positions.size(), R"("max_position_embeddings":1024)");
  const Config config = Config::parse(text, "config.json");
  Ids ids(700);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * i * 7 % 81);
  const Ids before(ids.begin(), ids.begin() + 70);
  Context ctx({.threads = 2});
  for (const Precision precision : kPrecisions) {
    SCOPED_TRACE(static_cast<int>(precision));
    const auto model = load_language_model(config, c.weights().with(precision));
    const std::vector<Prompts::Prompt> prompts = {{{}, ids}, {before, ids}};
    Prompts some(ctx, *model, {}, prompts), all(ctx, *model, {}, prompts);
    EXPECT_TRUE(golden::close_to(some.forward(Outputs::last_rows),
                                 all.last_of(all.forward(Outputs::every_row)),
                                 tolerance_of(precision)));
    EXPECT_EQ(some.continued(), all.continued()) << "the caches differ";
  }
}

}  // namespace
}  // namespace tessera::text
