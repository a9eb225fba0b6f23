// The spectrogram encoder of Whisper (Radford et al. 2022) as HF transformers' WhisperEncoder: two
// convolutions, sinusoidal positions (stored in the checkpoint), pre-norm Transformer.
#include "audio/tower.h"
#include "core/error.h"
#include "core/layers.h"
#include "core/tape.h"

namespace tessera::audio {
namespace {

struct WhisperEncoderConfig {
  std::int64_t width, layers, heads, inner, positions, mels;
  Activation activation;
  float attention_dropout;

  explicit WhisperEncoderConfig(const Config& c)
      : width(c.bounded("d_model", 384, 1, 1 << 16)),
        layers(c.bounded("encoder_layers", 4, 0, 1024)),
        heads(c.bounded("encoder_attention_heads", 6, 1, 1024)),
        inner(c.bounded("encoder_ffn_dim", 4 * width, 1, 1 << 18)),
        positions(c.bounded("max_source_positions", 1500, 1, 1 << 20)),
        mels(c.bounded("num_mel_bins", 80, 1, 1024)),
        activation(activation_from_name(c.string("activation_function", "gelu"))),
        attention_dropout(static_cast<float>(c.number("attention_dropout", 0.0))) {
    if (width % heads != 0)
      throw FormatError(concat(c.where(), ": ", heads, " heads do not divide a width of ", width));
  }
};

constexpr double kEps = 1e-5;

struct Block {
  std::int64_t width;
  AttentionOptions options;
  Activation activation;
  LayerNorm attention_norm, final_norm;
  Linear qkv, attention_out, fc1, fc2;

  Block(const WhisperEncoderConfig& c, const Weights& w)
      : width(c.width),
        options{.heads = c.heads, .dropout = c.attention_dropout},
        activation(c.activation),
        attention_norm(w.at("self_attn_layer_norm"), width, kEps),
        final_norm(w.at("final_layer_norm"), width, kEps),
        qkv(Linear::concat({{w.at("self_attn.q_proj"), width},
                            {w.at("self_attn.k_proj"), width, Linear::Bias::none},
                            {w.at("self_attn.v_proj"), width}},
                           width)),
        attention_out(w.at("self_attn.out_proj"), width, width),
        fc1(w.at("fc1"), width, c.inner),
        fc2(w.at("fc2"), c.inner, width) {
    options.rounded = qkv.rounds();
    options.in_bytes = qkv.in_bytes();
  }

  // x = x + Attn(LN(x));  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, Tensor x /*[T, D]*/) const {
    const Tensor h = qkv(ctx, x, {.norm = &attention_norm});
    const Tensor a = attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                               h.columns(2 * width, 3 * width), options);
    x = attention_out(ctx, a, {.residual = x});
    const Tensor m = fc1(ctx, x, {.norm = &final_norm, .activation = activation});
    return fc2(ctx, m, {.residual = x});
  }
};

class WhisperEncoder : public AudioTower {
 public:
  WhisperEncoder(const Config& config, const Weights& w)
      : c_(config),
        conv1_(w.at("conv1"), c_.mels, c_.width, 3, 1, 1),
        conv2_(w.at("conv2"), c_.width, c_.width, 3, 2, 1),
        positions_(w.get_f32("embed_positions.weight", {c_.positions, c_.width})),
        norm_(w.at("layer_norm"), c_.width, kEps) {
    for (std::int64_t i = 0; i < c_.layers; ++i) blocks_.emplace_back(c_, w.at("layers").at(i));
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t mels() const override { return c_.mels; }
  std::int64_t frames() const override { return 2 * c_.positions; }

  Tensor encode(Context& ctx, const Tensor& log_mel) const override {
    if (log_mel.rank() != 2 || log_mel.dim(1) != c_.mels || log_mel.dim(0) < 1 ||
        log_mel.dim(0) > frames()) {
      throw ShapeError(concat("the sound encoder takes up to ", frames(), " frames of ", c_.mels,
                              " mels, not ", log_mel.shape().str()));
    }
    Tensor x = conv2_(ctx, conv1_(ctx, log_mel, Activation::gelu), Activation::gelu);
    x = add(ctx, x, positions_.slice(0, x.dim(0)));
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      ctx.observe("hidden", static_cast<std::int64_t>(i), x);
      x = checkpointed(
          ctx, x, [&block = blocks_[i]](Context& c, const Tensor& in) { return block(c, in); });
    }
    ctx.observe("hidden", c_.layers, x);
    return norm_(ctx, x);
  }

 private:
  WhisperEncoderConfig c_;
  Conv1d conv1_, conv2_;
  Tensor positions_;
  std::vector<Block> blocks_;
  LayerNorm norm_;
};

}  // namespace

AudioFamily whisper_family() {
  return {{"whisper"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<AudioTower> {
            return std::make_unique<WhisperEncoder>(config, weights);
          }};
}

}  // namespace tessera::audio
