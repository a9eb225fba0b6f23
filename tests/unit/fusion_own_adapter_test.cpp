// Adapters that a checkpoint keeps for some of its own tasks.
#include <algorithm>

#include "core/error.h"
#include "fusion/model.h"
#include "fusion/sequence.h"
#include "golden/fixture.h"
#include "unit/core_numbers.h"

namespace tessera::fusion {
namespace {

using golden::Case;
using testing::random_tensor;

const std::string kQuery = "layers.0.self_attn.q_proj", kInner = "layers.1.fc1",
                  kNorm = "layers.1.final_layer_norm.weight";

class OwnAdapter : public ::testing::Test {
 protected:
  Case case_{"tessera-memory"};
  Context ctx_{{.threads = 2}};
  std::vector<NamedTensor> tensors_;

  void SetUp() override {
    const Weights all = case_.weights();
    for (const std::string& name : all.names())
      tensors_.push_back({name, all.get(name).to_f32().clone()});
  }
  Tensor& tensor(const std::string& name) {
    return std::ranges::find(tensors_, name, &NamedTensor::name)->tensor;
  }
  void add(const std::string& name, const Tensor& t) {
    tensors_.push_back({concat("adapters.look.", name), t});
  }
  /// Rank 2, and what W + B A is.
  Tensor add_low_rank(const std::string& layer) {
    const Tensor weight = tensor(concat("decoder.", layer, ".weight"));
    const Tensor a = random_tensor({2, weight.dim(1)}, 1), b = random_tensor({weight.dim(0), 2}, 2);
    add(layer + ".lora_A.weight", a);
    add(layer + ".lora_B.weight", b);
    Tensor merged = weight.clone();
    for (std::int64_t o = 0; o < weight.dim(0); ++o) {
      for (std::int64_t i = 0; i < weight.dim(1); ++i) {
        for (std::int64_t r = 0; r < 2; ++r)
          merged.data()[o * weight.dim(1) + i] +=
              b.data()[o * 2 + r] * a.data()[r * weight.dim(1) + i];
      }
    }
    return merged;
  }
  std::shared_ptr<const Model> open(Precision precision, bool adapted) {
    std::string config = case_.config().dump();
    const auto at = config.find('{', config.find("\"caption\":"));
    EXPECT_NE(at, config.npos);
    if (adapted) config.insert(at + 1, "\"adapter\": \"look\", ");
    return Model::open(case_.dir(), {.weights = Weights::of(tensors_).with(precision),
                                     .config = Config::parse(config, "config.json")});
  }
  Tensor logits(const text::LanguageModel& decoder) {
    const std::vector<std::int32_t> ids = {1, 2, 3, 4, 5};
    KvCache cache = decoder.new_cache();
    decoder.set_memory(ctx_, random_tensor({7, decoder.width()}, 9), cache);
    const text::Sequence sequence{&cache, std::ssize(ids)};
    return decoder.logits(ctx_,
                          decoder.forward(ctx_, decoder.embed(ctx_, ids), std::span(&sequence, 1)));
  }
  static double difference(const Tensor& a, const Tensor& b) {
    double most = 0;
    for (std::int64_t i = 0; i < a.numel(); ++i)
      most = std::max(most, std::abs(static_cast<double>(a.data()[i] - b.data()[i])));
    return most;
  }
};

TEST_F(OwnAdapter, IsWhatTheMergedWeightsAre) {
  const Tensor query = add_low_rank(kQuery), inner = add_low_rank(kInner);
  const Tensor norm = random_tensor(tensor(concat("decoder.", kNorm)).shape(), 3);
  add(kNorm, norm);
  for (const Precision precision : {Precision::in_place, Precision::f32, Precision::int8}) {
    const auto own = open(precision, true);
    EXPECT_EQ(own->unread, std::vector<std::string>());
    const Tensor plain = logits(*own->decoder), adapted = logits(own->decoder_for("caption"));
    EXPECT_EQ(difference(logits(own->decoder_for("transcribe")), plain), 0);
    const auto kept = tensors_;
    tensor(concat("decoder.", kQuery, ".weight")) = query;
    tensor(concat("decoder.", kInner, ".weight")) = inner;
    tensor(concat("decoder.", kNorm)) = norm;
    std::erase_if(tensors_, [](const auto& t) { return t.name.starts_with("adapters."); });
    const auto merged = open(precision, false);
    tensors_ = kept;
    EXPECT_LT(difference(adapted, logits(*merged->decoder)), 1e-4);
    EXPECT_GT(difference(adapted, plain), 0.1);
  }
}

TEST_F(OwnAdapter, MarksTheRowsOfSoundsForItsTaskAlone) {
  add_low_rank(kQuery);
  const std::int64_t width = open(Precision::f32, true)->decoder->width();
  const Tensor word = random_tensor({1, width}, 4);
  add("audio_embedding", word);
  const auto model = open(Precision::f32, true);
  EXPECT_EQ(model->unread, std::vector<std::string>());
  const Tensor rows = random_tensor({5, width}, 5);
  const auto memory = [&](const char* name) {
    const Task task = model->task(name);
    Sequence sequence(ctx_, *model, model->decoder_for(name), task);
    sequence.add_image_rows(rows);
    sequence.add_sound_rows(rows);
    return sequence.memory();
  };
  const Tensor marked = memory("caption"), plain = memory("transcribe");
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    EXPECT_EQ(marked.data()[i], rows.data()[i]);
    EXPECT_EQ(marked.data()[rows.numel() + i], rows.data()[i] + word.data()[i % width]);
    EXPECT_EQ(plain.data()[i], rows.data()[i]);
    EXPECT_EQ(plain.data()[rows.numel() + i], rows.data()[i]);
  }
  tensors_.back().tensor = random_tensor({1, width + 1}, 4);
  EXPECT_THROW(open(Precision::f32, true), ShapeError);
}

TEST_F(OwnAdapter, IsSaidWhereItDoesNotFit) {
  const auto refusal = [&] {
    try {
      open(Precision::f32, true)->decoder_for("caption");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(refusal().find("no tensors adapters.look.*"), std::string::npos) << refusal();
  add(kNorm, random_tensor({3}, 1));
  EXPECT_NE(refusal().find("[3] does not fit the decoder"), std::string::npos) << refusal();
  tensors_.pop_back();
  add("layers.7.fc1.lora_A.weight", random_tensor({2, 12}, 1));
  add("layers.7.fc1.lora_B.weight", random_tensor({20, 2}, 1));
  EXPECT_NE(refusal().find("layers.7.fc1.lora_A.weight"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace tessera::fusion
