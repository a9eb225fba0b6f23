// Gradients through whole checkpoints of every family, beside finite differences.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>

#include "core/error.h"
#include "core/loss.h"
#include "core/tape.h"
#include "fusion/dual_encoder.h"
#include "golden/fixture.h"
#include "golden/stages.h"
#include "train/autograd.h"
#include "train/parameters.h"

namespace tessera::train {
namespace {

using fusion::Consume;
using fusion::Model;
using golden::Case;

/// The config with another share dropped wherever it drops some.
Config with_dropout(const Config& config, const char* share) {
  std::string text = config.dump();
  for (const char* key :
       {"\"embd_pdrop\":", "\"resid_pdrop\":", "\"attn_pdrop\":", "\"attention_dropout\":"}) {
    for (std::size_t at = 0; (at = text.find(key, at)) != text.npos;) {
      at += std::string(key).size();
      text.replace(at, text.find_first_of(",}\n", at) - at, share);
    }
  }
  return Config::parse(text, "config.json");
}

/// A checkpoint made of parameters, and a loss that all of its parts lead to.
class WholeModel {
 public:
  explicit WholeModel(const std::string& name, const char* dropout = "0.0")
      : case_(name),
        parameters(copy_of(case_.weights())),
        model_(Model::open(case_.dir(), {.weights = Weights::of(parameters),
                                         .config = with_dropout(case_.config(), dropout),
                                         .needs_tokenizer = false})) {}

  Tensor loss(Context& ctx) const {
    std::vector<Tensor> seen;
    if (model_->vision) {
      const Tensor pixels = case_.get(case_.has("pixels") ? "pixels" : "pixels.0");
      if (model_->dual) return pair_loss(ctx, pixels);
      if (!model_->decoder) return class_loss(ctx, pixels);
      seen.push_back(model_->encode_pixels(ctx, pixels));
    }
    if (model_->audio) {
      const Tensor mel = case_.get(case_.has("mel") ? "mel" : "mel.0");
      seen.push_back(model_->encode_frames(ctx, golden::time_first(mel)));
    }
    const std::vector<std::int32_t> ids = {1, 5, 2, 7, 3};
    std::vector<Tensor> rows;
    KvCache cache = model_->decoder->new_cache();
    if (model_->consume == Consume::memory && !seen.empty()) {
      model_->decoder->set_memory(ctx, join_rows(ctx, seen), cache);
    } else {
      rows = seen;
    }
    rows.push_back(model_->decoder->embed(ctx, ids));
    const Tensor all = join_rows(ctx, rows);
    const text::Sequence sequence{&cache, all.dim(0)};
    const Tensor hidden = model_->decoder->forward(ctx, all, std::span(&sequence, 1));
    const std::int64_t last = hidden.dim(0);
    const std::vector<std::int32_t> targets = {4, 9, 0, 6};
    return cross_entropy(ctx, model_->decoder->logits(ctx, hidden.slice(last - 4, last)), targets);
  }

 private:
  Tensor pair_loss(Context& ctx, const Tensor& pixels) const {
    const fusion::DualEncoder encoder(model_);
    const std::vector<Tensor> images = {pixels, case_.get("other.0"), case_.get("other.1")};
    const std::vector<std::vector<std::int32_t>> texts = {
        {3, 40, 7, 89}, {12, 89, 89}, {5, 6, 70, 71, 72, 89}};
    const Tensor a = encoder.image_vectors(ctx, model_->vision->encode(ctx, images)),
                 b = encoder.text_vectors(ctx, texts);
    const fusion::DualParts& parts = *model_->dual;
    return parts.logit_bias ? sigmoid_pair_loss(ctx, a, b, parts.logit_scale, parts.logit_bias)
                            : contrastive_loss(ctx, a, b, parts.logit_scale);
  }
  Tensor class_loss(Context& ctx, const Tensor& pixels) const {
    const Tensor rows = model_->vision->encode(ctx, pixels);
    const bool pools = model_->vision->labels().empty();
    const Tensor logits = pools ? model_->vision->pool(ctx, rows).reshape({1, rows.dim(1)})
                                : model_->vision->class_logits(ctx, rows);
    const std::vector<std::int32_t> target = {1};
    return cross_entropy(ctx, logits, target);
  }

  Case case_;

 public:
  Parameters parameters;

 private:
  std::shared_ptr<const Model> model_;
};

/// Parts of names of what is stored but not used, or not learnt.
constexpr std::array kUntrained = {"pooler", ".attn.bias", ".attn.masked_bias", "mask_token",
                                   "rotary_emb"};

class WholeModels : public ::testing::TestWithParam<std::string> {};

TEST_P(WholeModels, EveryParameterHasItsGradient) {
  const WholeModel model(GetParam());
  Context ctx({.threads = 2});
  Tape tape;
  for (const NamedTensor& p : model.parameters) tape.watch(p.tensor);
  ctx.tape = &tape;
  Gradients gradients;
  backward(ctx, tape, model.loss(ctx), 1.0f, gradients);
  ctx.tape = nullptr;
  std::mt19937 generator(7);
  const auto loss = [&] { return static_cast<double>(model.loss(ctx).data()[0]); };
  for (const NamedTensor& p : model.parameters) {
    const Tensor found = gradients.find(p.tensor);
    if (!found) {
      EXPECT_TRUE(std::ranges::any_of(
          kUntrained, [&](const char* part) { return p.name.find(part) != p.name.npos; }))
          << p.name << " has no gradient";
      continue;
    }
    double largest = 1;
    for (const float g : found.to_vector())
      largest = std::max(largest, std::abs(static_cast<double>(g)));
    for (int k = 0; k < 2; ++k) {
      const auto j =
          static_cast<std::int64_t>(generator() % static_cast<std::uint32_t>(p.tensor.numel()));
      float& x = Tensor(p.tensor).data()[j];
      const float before = x, step = 0.002f;
      const auto at = [&](float d) {
        x = before + d;
        return loss();
      };
      const double expected =
          (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      x = before;
      EXPECT_NEAR(static_cast<double>(found.data()[j]), expected, 1e-2 * largest)
          << p.name << ", number " << j;
    }
  }
}

/// Loss and gradients of all parameters; `segments` is how many records are run again.
struct Found {
  float loss;
  std::vector<std::vector<float>> gradients;
  std::ptrdiff_t segments = 0;
  double kept = 0;
  bool operator==(const Found& o) const { return loss == o.loss && gradients == o.gradients; }
};

/// With parameters whose names have the part `only`.
Found found(const WholeModel& model, bool keeps_inputs_only, int threads, const char* only = "") {
  Context ctx({.threads = threads});
  Tape tape;
  tape.keeps_inputs_only = keeps_inputs_only;
  tape.set_seed(3);
  for (const NamedTensor& p : model.parameters)
    if (p.name.find(only) != p.name.npos) tape.watch(p.tensor);
  const TapeScope recording(ctx, &tape);
  Found out;
  Gradients gradients;
  const Tensor loss = model.loss(ctx);
  out.loss = loss.data()[0];
  out.segments = std::ranges::count(tape.records(), Op::segment, &Record::op);
  out.kept = tape.kept_bytes();
  backward(ctx, tape, loss, 1.0f, gradients);
  const std::uint64_t streams = tape.streams();
  // Twice: what is left of the first time does no harm.
  backward(ctx, tape, model.loss(ctx), 0.5f, gradients);
  EXPECT_EQ(tape.streams(), 2 * streams);
  for (const NamedTensor& p : model.parameters) {
    const Tensor g = gradients.find(p.tensor);
    out.gradients.push_back(g ? g.to_vector() : std::vector<float>());
  }
  return out;
}

TEST_P(WholeModels, BlocksThatRunAgainGiveTheSameGradients) {
  for (const char* dropout : {"0.0", "0.3"}) {
    const WholeModel model(GetParam(), dropout);
    const Found kept = found(model, false, 2), again = found(model, true, 2);
    EXPECT_EQ(kept.segments, 0);
    EXPECT_GT(again.segments, 0);
    EXPECT_LT(again.kept, kept.kept);
    EXPECT_TRUE(kept == again) << "dropout " << dropout;
    EXPECT_TRUE(again == found(model, true, 1)) << "on one thread";
  }
}

TEST_P(WholeModels, BlocksAboveFrozenOnesRunAgain) {
  const WholeModel model(GetParam(), "0.3");
  int compared = 0;
  for (const char* only : {".1.", "bias"}) {
    const Found kept = [&]() -> Found {
      try {
        return found(model, false, 2, only);
      } catch (const ArgumentError&) {  // this one has no such parameters
        return {};
      }
    }();
    if (kept.gradients.empty()) continue;
    EXPECT_TRUE(kept == found(model, true, 2, only)) << only;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Golden, WholeModels,
    ::testing::Values("vit-classify", "vit-no-bias", "deit-classify", "siglip-head",
                      "whisper-english", "whisper-128-mels", "ved-projected", "tessera-memory",
                      "tessera-memory-gpt2", "tessera-memory-int8", "tessera-memory-reduced",
                      "tessera-splice", "tessera-splice-deit", "tessera-splice-siglip-llama",
                      "gpt2-base", "gpt2-gelu-untied", "llama-published", "llama-tied-grouped",
                      "clip-published", "clip-old", "dual-vit", "dual-siglip", "siglip-pair"),
    golden::case_name);

}  // namespace
}  // namespace tessera::train
