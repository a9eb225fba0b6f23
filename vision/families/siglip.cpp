// The image tower of SigLIP and SigLIP 2 (Zhai et al. 2023), alone or as part of a whole `siglip`
// checkpoint, as HF transformers' SiglipVisionModel.
#include <optional>

#include "core/encoder.h"
#include "core/layers.h"
#include "vision/positions.h"
#include "vision/tower.h"

namespace tessera::vision {
namespace {

constexpr EncoderConfig kDefaults{.width = 768,
                                  .layers = 12,
                                  .heads = 12,
                                  .inner = 3072,
                                  .eps = 1e-6,
                                  .activation = Activation::gelu_tanh};

/// One learned query attends to all rows: [T, D] -> [1, D].
struct PoolingHead {
  std::int64_t width;
  AttentionOptions options;
  Tensor probe;  // [1, D]
  Linear query, key_value, attention_out;
  LayerNorm norm;
  EncoderMlp mlp;

  PoolingHead(const EncoderConfig& c, const Weights& w)
      : width(c.width),
        options{.heads = c.heads},
        probe(w.get_f32("probe", {1, 1, width}).reshape({1, width})),
        attention_out(w.at("attention.out_proj"), width, width),
        norm(w.at("layernorm"), width, c.eps),
        mlp(c, w.at("mlp")) {
    const Tensor weight = w.get_f32("attention.in_proj_weight", {3 * width, width}),
                 bias = w.get_f32("attention.in_proj_bias", {3 * width});
    query = Linear(weight.slice(0, width), bias.slice(0, width), w.precision());
    key_value = Linear(weight.slice(width, 3 * width), bias.slice(width, 3 * width), w.precision());
  }

  // x = Attn(probe, rows);  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, const Tensor& rows) const {
    const Tensor kv = key_value(ctx, rows);
    const Tensor a = attention(ctx, query(ctx, probe), kv.columns(0, width),
                               kv.columns(width, 2 * width), options);
    const Tensor x = attention_out(ctx, a);
    return mlp(ctx, x, norm);
  }
};

class Siglip : public VisionTower {
 public:
  Siglip(const Config& config, const Weights& weights)
      : c_(EncoderConfig::read(config, kDefaults)),
        patch_(config.bounded("patch_size", 16, 1, 1024)) {
    const Weights w = weights.has("vision_model.embeddings.patch_embedding.weight")
                          ? weights.at("vision_model")
                          : weights;
    patches_ = Conv2d(w.at("embeddings.patch_embedding"), config.bounded("num_channels", 3, 1, 64),
                      c_.width, patch_);
    positions_ = PositionTable(w, "embeddings.position_embedding.weight", 2, 0, c_.width);
    w.ignore("embeddings.position_ids");  // a buffer that old checkpoints carry
    blocks_ = encoder_blocks(c_, w.at("encoder.layers"));
    norm_ = LayerNorm(w.at("post_layernorm"), c_.width, c_.eps);
    if (config.boolean("vision_use_head", true)) head_.emplace(c_, w.at("head"));
    for (const char* other : {"text_model.", "logit_scale", "logit_bias"}) weights.ignore(other);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t class_tokens() const override { return 0; }
  std::int64_t patch_size() const override { return patch_; }

  Tensor pool(Context& ctx, std::span<const Tensor> rows) const override {
    if (!head_) return VisionTower::pool(ctx, rows);
    std::vector<Tensor> pooled;
    for (const Tensor& r : rows) pooled.push_back((*head_)(ctx, r));
    return join_rows(ctx, pooled);
  }

 private:
  Tensor run(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const override {
    return norm_(ctx, through_blocks(ctx, blocks_, x, begin));
  }

  /// Patches + positions; pixels beyond the last whole patch are not seen.
  Tensor embed(Context& ctx, const Tensor& pixels) const override {
    return add(ctx, patches_(ctx, pixels),
               positions_(ctx, pixels.dim(1) / patch_, pixels.dim(2) / patch_));
  }

  EncoderConfig c_;
  std::int64_t patch_ = 0;
  Conv2d patches_;
  PositionTable positions_;
  std::vector<EncoderBlock> blocks_;
  LayerNorm norm_;
  std::optional<PoolingHead> head_;
};

}  // namespace

VisionFamily siglip_family() {
  return {{"siglip_vision_model", "siglip"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<VisionTower> {
            const bool whole = config.string("model_type") == "siglip";
            return std::make_unique<Siglip>(whole ? config.child("vision_config") : config,
                                            weights);
          }};
}

}  // namespace tessera::vision
