// The image tower of SigLIP and SigLIP 2 (Zhai et al. 2023), alone or as part of a whole `siglip`
// checkpoint, as HF transformers' SiglipVisionModel.
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/layers.h"
#include "vision/positions.h"
#include "vision/tower.h"

namespace tessera::vision {
namespace {

struct SiglipConfig {
  std::int64_t width, layers, heads, inner, channels, patch;
  double eps;
  Activation activation;
  bool pools;

  explicit SiglipConfig(const Config& c)
      : width(c.bounded("hidden_size", 768, 1, 1 << 16)),
        layers(c.bounded("num_hidden_layers", 12, 0, 1024)),
        heads(c.bounded("num_attention_heads", 12, 1, 1024)),
        inner(c.bounded("intermediate_size", 3072, 1, 1 << 18)),
        channels(c.bounded("num_channels", 3, 1, 64)),
        patch(c.bounded("patch_size", 16, 1, 1024)),
        eps(c.number("layer_norm_eps", 1e-6)),
        activation(activation_from_name(c.string("hidden_act", "gelu_pytorch_tanh"))),
        pools(c.boolean("vision_use_head", true)) {
    if (width % heads != 0)
      throw FormatError(concat(c.where(), ": ", heads, " heads do not divide a width of ", width));
  }
};

struct Mlp {
  Activation activation;
  Linear fc1, fc2;

  Mlp(const SiglipConfig& c, const Weights& w)
      : activation(c.activation),
        fc1(w.at("fc1"), c.width, c.inner),
        fc2(w.at("fc2"), c.inner, c.width) {}

  /// x + fc2(act(fc1(h)))
  Tensor operator()(Context& ctx, const Tensor& h, const Tensor& x) const {
    return fc2(ctx, fc1(ctx, h, {.activation = activation}), {.residual = x});
  }
};

struct Block {
  std::int64_t width;
  AttentionOptions options;
  LayerNorm norm1, norm2;
  Linear qkv, attention_out;
  Mlp mlp;

  Block(const SiglipConfig& c, const Weights& w)
      : width(c.width),
        options{.heads = c.heads},
        norm1(w.at("layer_norm1"), width, c.eps),
        norm2(w.at("layer_norm2"), width, c.eps),
        qkv(Linear::concat({{w.at("self_attn.q_proj"), width},
                            {w.at("self_attn.k_proj"), width},
                            {w.at("self_attn.v_proj"), width}},
                           width)),
        attention_out(w.at("self_attn.out_proj"), width, width),
        mlp(c, w.at("mlp")) {
    options.rounded = qkv.rounds();
  }

  // x = x + Attn(LN(x));  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, Tensor x /*[T, D]*/, std::span<const std::int64_t> begin) const {
    const Tensor h = qkv(ctx, norm1(ctx, x));
    const Tensor a = attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                               h.columns(2 * width, 3 * width), options, begin);
    x = attention_out(ctx, a, {.residual = x});
    return mlp(ctx, norm2(ctx, x), x);
  }
};

/// One learned query attends to all rows: [T, D] -> [1, D].
struct PoolingHead {
  std::int64_t width;
  AttentionOptions options;
  Tensor probe;  // [1, D]
  Linear query, key_value, attention_out;
  LayerNorm norm;
  Mlp mlp;

  PoolingHead(const SiglipConfig& c, const Weights& w)
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
    return mlp(ctx, norm(ctx, x), x);
  }
};

class Siglip : public VisionTower {
 public:
  Siglip(const Config& config, const Weights& weights) : c_(config) {
    const Weights w = weights.has("vision_model.embeddings.patch_embedding.weight")
                          ? weights.at("vision_model")
                          : weights;
    patches_ = Conv2d(w.at("embeddings.patch_embedding"), c_.channels, c_.width, c_.patch);
    const Tensor all = w.get("embeddings.position_embedding.weight");
    const std::int64_t count = all.rank() == 2 ? all.dim(0) : 0;
    side_ = static_cast<std::int64_t>(std::sqrt(static_cast<double>(count)) + 0.5);
    positions_ = w.get_f32("embeddings.position_embedding.weight", {side_ * side_, c_.width});
    w.ignore("embeddings.position_ids");  // a buffer that old checkpoints carry
    for (std::int64_t i = 0; i < c_.layers; ++i)
      blocks_.emplace_back(c_, w.at("encoder.layers").at(i));
    norm_ = LayerNorm(w.at("post_layernorm"), c_.width, c_.eps);
    if (c_.pools) head_.emplace(c_, w.at("head"));
    for (const char* other : {"text_model.", "logit_scale", "logit_bias"}) weights.ignore(other);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t class_tokens() const override { return 0; }
  std::int64_t patch_size() const override { return c_.patch; }

  Tensor pool(Context& ctx, const Tensor& rows) const override {
    if (!head_) return VisionTower::pool(ctx, rows);
    return (*head_)(ctx, rows).reshape({c_.width});
  }

 private:
  Tensor run(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const override {
    return run_blocks(ctx, blocks_, norm_, x, begin);
  }

  /// Patches + positions; pixels beyond the last whole patch are not seen.
  Tensor embed(Context& ctx, const Tensor& pixels) const override {
    const Tensor patches = patches_(ctx, pixels);
    const std::int64_t high = pixels.dim(1) / c_.patch, wide = pixels.dim(2) / c_.patch;
    if (high == side_ && wide == side_) return add(ctx, patches, positions_);
    return add(ctx, patches, resize_positions(ctx, positions_, side_, side_, high, wide));
  }

  SiglipConfig c_;
  Conv2d patches_;
  Tensor positions_;  // [side*side, D]
  std::int64_t side_ = 0;
  std::vector<Block> blocks_;
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
