#include "core/weights.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "text/generate.h"
#include "text/language_model.h"

namespace tessera::text {
namespace {

using golden::Case;

class Decoder : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  std::unique_ptr<LanguageModel> model_ = load_language_model(case_.config(), case_.weights());
  Context ctx_;

  KvCache new_cache() {
    KvCache cache = model_->new_cache();
    if (case_.has("memory")) model_->set_memory(ctx_, case_.get("memory"), cache);
    return cache;
  }
  Tensor forward(std::span<const std::int32_t> ids, KvCache& cache) {
    const Sequence sequence{&cache, static_cast<std::int64_t>(ids.size())};
    return model_->forward(ctx_, model_->embed(ctx_, ids), std::span(&sequence, 1));
  }
};

TEST_P(Decoder, EveryStageMatchesTheReference) {
  golden::StageCheck stages(ctx_, case_);
  KvCache cache = new_cache();
  const Tensor last = forward(case_.ids("input_ids"), cache);
  EXPECT_GE(stages.finish(), 2);
  EXPECT_TRUE(case_.matches("last_hidden", last));
  EXPECT_TRUE(case_.matches("logits", model_->logits(ctx_, last)));
}

TEST_P(Decoder, NothingIsLeftUnread) {
  const Weights weights = case_.weights();
  load_language_model(case_.config(), weights);
  EXPECT_EQ(weights.leftovers(), std::vector<std::string>());
}

TEST_P(Decoder, TokenByTokenEqualsAllAtOnce) {
  const auto ids = case_.ids("input_ids");
  KvCache cache = new_cache();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Tensor last = forward(std::span(ids).subspan(i, 1), cache);
    const auto row = static_cast<std::int64_t>(i);
    EXPECT_TRUE(golden::close_to(last, case_.get("last_hidden").slice(row, row + 1), 2e-4))
        << "token " << i;
  }
}

TEST_P(Decoder, SequencesDecodedTogetherEqualThemselvesAlone) {
  const auto ids = case_.ids("input_ids");
  KvCache a = new_cache(), b = new_cache();
  const std::span<const std::int32_t> first(ids.data(), 5), second(ids.data() + 2, 3);
  std::vector<std::int32_t> both(first.begin(), first.end());
  both.insert(both.end(), second.begin(), second.end());
  const Sequence sequences[] = {{&a, 5}, {&b, 3}};
  const Tensor together = model_->forward(ctx_, model_->embed(ctx_, both), sequences);
  KvCache c = new_cache(), d = new_cache();
  EXPECT_TRUE(golden::close_to(together.slice(0, 5), forward(first, c), 1e-5));
  EXPECT_TRUE(golden::close_to(together.slice(5, 8), forward(second, d), 1e-5));
}

TEST_P(Decoder, KeysAndValuesMayBeRounded) {
  const auto ids = case_.ids("input_ids");
  for (const auto& [numbers, tolerance] :
       {std::pair(CacheNumbers::bf16, 0.03), std::pair(CacheNumbers::int8, 0.06)}) {
    model_ = load_language_model(case_.config(), case_.weights().with(numbers));
    EXPECT_EQ(model_->cache_numbers(), numbers);
    KvCache cache = new_cache(), other = new_cache();
    const Tensor last = forward(ids, cache);
    EXPECT_TRUE(golden::close_to(last, case_.get("last_hidden"), tolerance));
    EXPECT_FALSE(golden::close_to(last, case_.get("last_hidden"), 1e-5)) << "nothing is rounded";
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      EXPECT_TRUE(golden::close_to(forward(std::span(ids).subspan(i, 1), other),
                                   last.slice(row, row + 1), 0.01))
          << "token " << i;
    }
  }
}

TEST_P(Decoder, GeneratesTheSameIds) {
  ASSERT_FALSE(case_.generated().empty());
  for (const golden::Generated& g : case_.generated()) {
    auto options = SamplingOptions::from_config(case_.generation_config());
    options.apply(g.options);
    GenerateInput input{new_cache(), model_->embed(ctx_, g.prompt), g.prompt};
    const auto results = generate(ctx_, *model_, nullptr, std::move(input), options);
    golden::expect_generated(results, g, options.stop_tokens);
  }
}

/// llama-bias with one thing in its config.json changed.
void load_changed(const std::string& from, const std::string& to) {
  const Case c("llama-bias");
  std::string text = c.config().dump();
  const std::size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << text;
  load_language_model(Config::parse(text.replace(at, from.size(), to), "config.json"), c.weights());
}

TEST(Llama, ConfigAndFileMustAgree) {
  load_changed(R"("model_type":"llama")", R"("model_type":"llama")");
  EXPECT_THROW(load_changed(R"("attention_bias":true)", R"("attention_bias":false)"), FormatError);
  EXPECT_THROW(load_changed(R"("mlp_bias":true)", R"("mlp_bias":false)"), FormatError);
  EXPECT_THROW(load_changed(R"("num_key_value_heads":1)", R"("num_key_value_heads":2)"),
               FormatError);
  EXPECT_THROW(load_changed(R"("head_dim":6)", R"("head_dim":5)"), FormatError);
  EXPECT_THROW(load_changed(R"("head_dim":6)", R"("head_dim":8)"), ShapeError);
  EXPECT_THROW(load_changed(R"("hidden_act":"gelu")", R"("hidden_act":"snake")"), UnsupportedError);
  const Case plain("llama-head-dim");  // no biases in its MLP
  std::string text = plain.config().dump();
  const std::string off = R"("mlp_bias":false)";
  ASSERT_NE(text.find(off), std::string::npos) << text;
  text.replace(text.find(off), off.size(), R"("mlp_bias":true)");
  EXPECT_THROW(load_language_model(Config::parse(text, "config.json"), plain.weights()),
               FormatError);
}

INSTANTIATE_TEST_SUITE_P(Gpt2, Decoder, ::testing::ValuesIn(Case::all("gpt2")), golden::case_name);
INSTANTIATE_TEST_SUITE_P(Llama, Decoder, ::testing::ValuesIn(Case::all("llama")),
                         golden::case_name);

}  // namespace
}  // namespace tessera::text
