// The image tower of CLIP (Radford et al. 2021), alone or as part of a whole `clip` checkpoint, as
// HF transformers' CLIPVisionModel.
#include "core/encoder.h"
#include "core/error.h"
#include "vision/positions.h"
#include "vision/tower.h"

namespace tessera::vision {
namespace {

constexpr EncoderConfig kDefaults{.width = 768,
                                  .layers = 12,
                                  .heads = 12,
                                  .inner = 3072,
                                  .eps = 1e-5,
                                  .activation = Activation::quick_gelu};

class Clip : public VisionTower {
 public:
  Clip(const Config& config, const Weights& weights)
      : c_(EncoderConfig::read(config, kDefaults)),
        patch_(config.bounded("patch_size", 32, 1, 1024)) {
    const Weights w =
        weights.has("vision_model.pre_layrnorm.weight") ? weights.at("vision_model") : weights;
    patches_ = Conv2d(w.at("embeddings.patch_embedding"), config.bounded("num_channels", 3, 1, 64),
                      c_.width, patch_, Linear::Bias::none);
    class_token_ = w.get_f32("embeddings.class_embedding", {c_.width}).reshape({1, c_.width});
    positions_ = PositionTable(w, "embeddings.position_embedding.weight", 2, 1, c_.width);
    w.ignore("embeddings.position_ids");  // a buffer that old checkpoints carry
    norm_before_ = LayerNorm(w.at("pre_layrnorm"), c_.width, c_.eps);  // the published spelling
    blocks_ = encoder_blocks(c_, w.at("encoder.layers"));
    norm_after_ = LayerNorm(w.at("post_layernorm"), c_.width, c_.eps);
    for (const char* other :
         {"text_model.", "logit_scale", "visual_projection.", "text_projection."})
      weights.ignore(other);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t class_tokens() const override { return 1; }
  std::int64_t patch_size() const override { return patch_; }

  std::int64_t pooled_rows() const override { return 1; }
  Tensor pool(Context& ctx, std::span<const Tensor> rows) const override {
    return norm_after_(ctx, first_rows(ctx, rows));
  }

 private:
  /// The last norm is that of the class token alone, in pool(): the rows are HF's
  /// last_hidden_state, which it has not seen.
  Tensor run(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const override {
    return through_blocks(ctx, blocks_, x, begin);
  }

  /// LN([class token; patches] + positions)
  Tensor embed(Context& ctx, const Tensor& pixels) const override {
    const Tensor x = join_rows(ctx, {class_token_, patches_(ctx, pixels)});
    const Tensor positions = positions_(ctx, pixels.dim(1) / patch_, pixels.dim(2) / patch_);
    return norm_before_(ctx, add(ctx, x, positions));
  }

  EncoderConfig c_;
  std::int64_t patch_ = 0;
  Conv2d patches_;
  Tensor class_token_;  // [1, D]
  PositionTable positions_;
  LayerNorm norm_before_, norm_after_;
  std::vector<EncoderBlock> blocks_;
};

}  // namespace

VisionFamily clip_family() {
  return {{"clip_vision_model", "clip"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<VisionTower> {
            const bool whole = config.string("model_type") == "clip";
            return std::make_unique<Clip>(whole ? config.child("vision_config") : config, weights);
          }};
}

}  // namespace tessera::vision
