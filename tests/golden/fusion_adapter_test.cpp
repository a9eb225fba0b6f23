// LoRA adapters as PEFT saves them, merged into checkpoints and beside them (make_adapters.py).
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "fusion/adapter.h"
#include "fusion/model.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;
using golden::Case;

fs::path adapter(const std::string& name) {
  return fs::path(TESSERA_SOURCE_DIR) / "tests/data/adapters" / name;
}

Tensor logits(const Model& model, const text::LanguageModel& decoder, const Case& c,
              const std::vector<std::int32_t>& ids) {
  Context ctx({.threads = 2});
  KvCache cache = decoder.new_cache();
  if (model.audio)
    decoder.set_memory(ctx, model.encode_frames(ctx, golden::time_first(c.get("mel"))), cache);
  const text::Sequence sequence{&cache, static_cast<std::int64_t>(ids.size())};
  return decoder.logits(ctx,
                        decoder.forward(ctx, decoder.embed(ctx, ids), std::span(&sequence, 1)));
}
Tensor logits(const Model& model, const Case& c, const std::vector<std::int32_t>& ids) {
  return logits(model, *model.decoder, c, ids);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double largest = 0, size = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const auto x = static_cast<double>(a.data()[i]), y = static_cast<double>(b.data()[i]);
    largest = std::max(largest, std::abs(x - y));
    size = std::max(size, std::abs(y));
  }
  return largest / size;
}

class Adapters : public ::testing::TestWithParam<std::string> {
 protected:
  Case case_{GetParam()};
  Weights golden_ = Weights::open(adapter(GetParam()) / "golden.safetensors");
  std::vector<std::int32_t> ids_ = {1, 5, 2, 7, 3};
  Tensor expected_ = golden_.get("logits").to_f32();
};

TEST_P(Adapters, MergedGivesTheLogitsOfPeft) {
  const auto model = Model::open(
      case_.dir(),
      {.precision = Precision::f32, .adapters = {adapter(GetParam())}, .needs_tokenizer = false});
  EXPECT_LE(largest_difference(logits(*model, case_, ids_), expected_), 1e-4);
  const auto plain =
      Model::open(case_.dir(), {.precision = Precision::f32, .needs_tokenizer = false});
  EXPECT_GE(largest_difference(logits(*plain, case_, ids_), expected_), 1e-2)
      << "the adapter has to make a difference";
}

TEST_P(Adapters, BesideTheWeightsGivesTheSame) {
  // What fine-tuning works on: new_lora()'s tensors, with the saved numbers in them.
  std::vector<NamedTensor> all;
  const Weights base = case_.weights(),
                saved = Weights::open(adapter(GetParam()) / "adapter_model.safetensors");
  for (const std::string& name : base.names()) all.push_back({name, base.get(name).to_f32()});
  const Config config = Config::read(adapter(GetParam()) / "adapter_config.json");
  LoraOptions options{.rank = config.integer("r"), .alpha = config.number("lora_alpha")};
  if (config.boolean("use_rslora", false))
    options.alpha *= std::sqrt(static_cast<double>(options.rank));
  options.targets = config.strings("target_modules");
  const NewLora lora = new_lora(all, options, "base", 1);
  ASSERT_EQ(lora.parameters.size(), saved.names().size());
  for (const NamedTensor& p : lora.parameters) {
    const Tensor from = saved.get_f32(p.name, p.tensor.shape());
    std::copy_n(from.data(), from.numel(), Tensor(p.tensor).data());
  }
  all.insert(all.end(), lora.layers.begin(), lora.layers.end());
  const auto model =
      Model::open(case_.dir(), {.weights = Weights::of(all), .needs_tokenizer = false});
  EXPECT_LE(largest_difference(logits(*model, case_, ids_), expected_), 1e-4);
}

TEST_P(Adapters, OneOnTopOfTheOther) {
  const auto once = with_adapters(case_.weights(), {adapter(GetParam())}),
             twice = with_adapters(case_.weights(), {adapter(GetParam()), adapter(GetParam())});
  const Weights plain = case_.weights();
  bool changed = false;
  for (const std::string& name : plain.names()) {
    const auto a = plain.get(name).to_f32().to_vector(), b = once.get(name).to_f32().to_vector(),
               c = twice.get(name).to_f32().to_vector();
    changed = changed || a != b;
    for (std::size_t i = 0; i < a.size(); ++i)
      ASSERT_NEAR(static_cast<double>(c[i] - b[i]), static_cast<double>(b[i] - a[i]), 1e-5) << name;
  }
  EXPECT_TRUE(changed);
}

INSTANTIATE_TEST_SUITE_P(Golden, Adapters,
                         ::testing::Values("gpt2-base", "llama-tied-grouped", "whisper-english"),
                         golden::case_name);

TEST_P(Adapters, AreSwitchedCallByCall) {
  const OpenOptions options{.precision = Precision::f32,
                            .switchable = {{"own", adapter(GetParam())}},
                            .needs_tokenizer = false};
  if (GetParam() == "whisper-english") {  // it changes the sound tower, too
    EXPECT_THROW(Model::open(case_.dir(), options), UnsupportedError);
    return;
  }
  const auto model = Model::open(case_.dir(), options),
             plain =
                 Model::open(case_.dir(), {.precision = Precision::f32, .needs_tokenizer = false});
  const Tensor before = logits(*model, model->decoder_for("prompt"), case_, ids_);
  EXPECT_LE(largest_difference(logits(*model, model->decoder_for("prompt", "own"), case_, ids_),
                               expected_),
            1e-4);
  EXPECT_EQ(largest_difference(before, logits(*plain, case_, ids_)), 0);
  EXPECT_EQ(largest_difference(logits(*model, model->decoder_for("prompt"), case_, ids_), before),
            0);
  EXPECT_THROW(model->decoder_for("prompt", "other"), ArgumentError);
  EXPECT_THROW(Model::open(case_.dir(), {.switchable = {{"own", case_.dir()}}}), Error);
}

TEST(Adapter, ThoseOfOtherModelsAreRefused) {
  const Weights gpt2 = Case("gpt2-base").weights(), llama = Case("llama-bias").weights();
  EXPECT_THROW(with_adapters(gpt2, {adapter("whisper-english")}), FormatError);
  EXPECT_THROW(with_adapters(llama, {adapter("llama-tied-grouped")}), ShapeError);
  EXPECT_THROW(with_adapters(gpt2, {adapter("nowhere")}), IoError);
  EXPECT_THROW(with_adapters(gpt2, {Case("gpt2-base").dir()}), IoError);
  const testing::TemporaryFolder temporary;
  const fs::path& folder = temporary.path;
  fs::copy_file(adapter("gpt2-base") / "adapter_model.safetensors",
                folder / "adapter_model.safetensors", fs::copy_options::overwrite_existing);
  for (const char* config :
       {R"({"peft_type": "IA3"})", R"({"use_dora": true})", R"({"bias": "all"})"}) {
    std::ofstream(folder / "adapter_config.json") << config;
    EXPECT_THROW(with_adapters(gpt2, {folder}), UnsupportedError) << config;
  }
}

TEST(Adapter, NewOnesTakeTheUsualLayers) {
  std::vector<NamedTensor> gpt2;
  const Weights w = Case("gpt2-base").weights();
  for (const std::string& name : w.names()) gpt2.push_back({name, w.get(name).to_f32()});
  const NewLora lora = new_lora(gpt2, {.rank = 2}, "gpt2", 1);
  for (const NamedTensor& p : lora.parameters) {
    EXPECT_TRUE(p.name.starts_with("base_model.model.transformer.h.")) << p.name;
    EXPECT_NE(p.name.find("attn.c_attn.lora_"), std::string::npos) << p.name;
    const auto values = p.tensor.to_vector();
    const bool zero = std::ranges::all_of(values, [](float x) { return x == 0; });
    EXPECT_EQ(zero, p.name.ends_with("lora_B.weight")) << "nothing is added at first";
  }
  EXPECT_THROW(new_lora(gpt2, {.rank = 2, .targets = {"q_proj"}}, "gpt2", 1), ArgumentError);
  EXPECT_THROW(new_lora(gpt2, {.rank = 0}, "gpt2", 1), ArgumentError);
}

}  // namespace
}  // namespace tessera::fusion
