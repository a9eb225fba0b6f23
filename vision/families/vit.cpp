// Vision Transformer (Dosovitskiy et al. 2020) and DeiT (Touvron et al. 2020: one more token), with
// or without a classification head, as HF transformers' ViT* and DeiT* models.
#include <algorithm>
#include <cmath>

#include "core/encoder.h"
#include "core/error.h"
#include "core/layers.h"
#include "vision/positions.h"
#include "vision/tower.h"

namespace tessera::vision {
namespace {

struct VitConfig {
  std::int64_t width, layers, heads, inner, channels, patch;
  double eps;
  Activation activation, pooler_activation;
  std::int64_t pooled_width;
  Linear::Bias qkv_bias;

  explicit VitConfig(const Config& c)
      : width(c.bounded("hidden_size", 768, 1, 1 << 16)),
        layers(c.bounded("num_hidden_layers", 12, 0, 1024)),
        heads(c.bounded("num_attention_heads", 12, 1, 1024)),
        inner(c.bounded("intermediate_size", 3072, 1, 1 << 18)),
        channels(c.bounded("num_channels", 3, 1, 64)),
        patch(c.bounded("patch_size", 16, 1, 1024)),
        eps(c.number("layer_norm_eps", 1e-12)),
        activation(activation_from_name(c.string("hidden_act", "gelu"))),
        pooler_activation(activation_from_name(c.string("pooler_act", "tanh"))),
        pooled_width(c.bounded("pooler_output_size", width, 1, 1 << 16)),
        qkv_bias(c.boolean("qkv_bias", true) ? Linear::Bias::required : Linear::Bias::none) {
    if (width % heads != 0)
      throw FormatError(concat(c.where(), ": ", heads, " heads do not divide a width of ", width));
  }
};

struct Block {
  std::int64_t width;
  AttentionOptions options;
  Activation activation;
  LayerNorm norm_before, norm_after;
  Linear qkv, attention_out, intermediate, output;

  Block(const VitConfig& c, const Weights& w)
      : width(c.width),
        options{.heads = c.heads},
        activation(c.activation),
        norm_before(w.at("layernorm_before"), width, c.eps),
        norm_after(w.at("layernorm_after"), width, c.eps),
        qkv(Linear::concat({{w.at("attention.attention.query"), width, c.qkv_bias},
                            {w.at("attention.attention.key"), width, c.qkv_bias},
                            {w.at("attention.attention.value"), width, c.qkv_bias}},
                           width)),
        attention_out(w.at("attention.output.dense"), width, width),
        intermediate(w.at("intermediate.dense"), width, c.inner),
        output(w.at("output.dense"), c.inner, width) {
    options.rounded = qkv.rounds();
    options.in_bytes = qkv.in_bytes();
  }

  // x = x + Attn(LN(x));  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, Tensor x /*[T, D]*/, std::span<const std::int64_t> begin) const {
    const Tensor h = qkv(ctx, x, {.norm = &norm_before});
    const Tensor a = attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                               h.columns(2 * width, 3 * width), options, begin);
    x = attention_out(ctx, a, {.residual = x});
    const Tensor m = intermediate(ctx, x, {.norm = &norm_after, .activation = activation});
    return output(ctx, m, {.residual = x});
  }
};

class Vit : public VisionTower {
 public:
  Vit(const Config& config, const Weights& weights) : c_(config) {
    const Weights w = weights.has("vit.embeddings.cls_token")    ? weights.at("vit")
                      : weights.has("deit.embeddings.cls_token") ? weights.at("deit")
                                                                 : weights;
    load_embeddings(w.at("embeddings"));
    for (std::int64_t i = 0; i < c_.layers; ++i)
      blocks_.emplace_back(c_, w.at("encoder.layer").at(i));
    norm_ = LayerNorm(w.at("layernorm"), c_.width, c_.eps);
    if (w.has("pooler.dense.weight"))
      pooler_ = Linear(w.at("pooler.dense"), c_.width, c_.pooled_width);
    w.ignore("embeddings.mask_token");
    // DeiT trained with a teacher has a head for each of its two tokens; their logits are averaged.
    for (const char* name : {"classifier", "cls_classifier", "distillation_classifier"}) {
      if (!weights.has(std::string(name) + ".weight")) continue;
      const std::int64_t classes = weights.get(std::string(name) + ".weight").dim(0);
      heads_.emplace_back(weights.at(name), c_.width, classes);
      labels_ = class_labels(config, classes);
    }
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t class_tokens() const override { return std::ssize(first_); }
  std::int64_t patch_size() const override { return c_.patch; }
  std::vector<std::string> labels() const override { return labels_; }

  std::int64_t pooled_rows() const override { return 1; }
  /// tanh(dense(class token)), HF's ViTPooler.
  Tensor pool(Context& ctx, std::span<const Tensor> rows) const override {
    if (!pooler_) return VisionTower::pool(ctx, rows);
    return pooler_(ctx, first_rows(ctx, rows), {.activation = c_.pooler_activation});
  }

  Tensor class_logits(Context& ctx, const Tensor& rows) const override {
    if (heads_.empty()) return VisionTower::class_logits(ctx, rows);
    Tensor logits = heads_[0](ctx, rows.slice(0, 1));
    if (heads_.size() == 2) {
      logits = scaled(ctx, add(ctx, logits, heads_[1](ctx, rows.slice(1, 2))), 0.5f);
    }
    return logits;
  }

 private:
  Tensor run(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const override {
    return norm_(ctx, through_blocks(ctx, blocks_, x, begin));
  }

  void load_embeddings(const Weights& w) {
    patches_ = Conv2d(w.at("patch_embeddings.projection"), c_.channels, c_.width, c_.patch);
    for (const char* name : {"cls_token", "distillation_token"}) {
      if (w.has(name) || first_.empty())
        first_.push_back(w.get_f32(name, {1, 1, c_.width}).reshape({1, c_.width}));
    }
    positions_ = PositionTable(w, "position_embeddings", 3, class_tokens(), c_.width);
  }

  /// [class token; distillation token; patches] + positions
  Tensor embed(Context& ctx, const Tensor& pixels) const override {
    std::vector<Tensor> parts = first_;
    parts.push_back(patches_(ctx, pixels));
    return add(ctx, join_rows(ctx, parts),
               positions_(ctx, pixels.dim(1) / c_.patch, pixels.dim(2) / c_.patch));
  }

  VitConfig c_;
  Conv2d patches_;
  std::vector<Tensor> first_;  // [1, D] each: class token, distillation token
  PositionTable positions_;
  std::vector<Block> blocks_;
  LayerNorm norm_;
  Linear pooler_;  // none: this checkpoint has none
  std::vector<Linear> heads_;
  std::vector<std::string> labels_;
};

}  // namespace

VisionFamily vit_family() {
  return {{"vit", "deit"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<VisionTower> {
            return std::make_unique<Vit>(config, weights);
          }};
}

}  // namespace tessera::vision
