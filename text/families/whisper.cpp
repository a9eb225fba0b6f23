// The decoder of Whisper (Radford et al. 2022) as HF transformers' WhisperDecoder: text that
// cross-attends to a memory.
#include <cmath>

#include "core/error.h"
#include "core/layers.h"
#include "text/decoder.h"
#include "text/language_model.h"

namespace tessera::text {
namespace {

struct WhisperDecoderConfig {
  std::int64_t width, layers, heads, inner, positions, vocab;
  Activation activation;
  bool scale_embedding;
  float attention_dropout;

  explicit WhisperDecoderConfig(const Config& c)
      : width(c.bounded("d_model", 384, 1, 1 << 16)),
        layers(c.bounded("decoder_layers", 4, 0, 1024)),
        heads(c.bounded("decoder_attention_heads", 6, 1, 1024)),
        inner(c.bounded("decoder_ffn_dim", 4 * width, 1, 1 << 18)),
        positions(c.bounded("max_target_positions", 448, 1, 1 << 20)),
        vocab(c.bounded("vocab_size", 51865, 1, 1 << 24)),
        activation(activation_from_name(c.string("activation_function", "gelu"))),
        scale_embedding(c.boolean("scale_embedding", false)),
        attention_dropout(static_cast<float>(c.number("attention_dropout", 0.0))) {
    if (width % heads != 0)
      throw FormatError(concat(c.where(), ": ", heads, " heads do not divide a width of ", width));
  }
};

constexpr double kEps = 1e-5;

struct Block {
  std::int64_t layer, width;
  AttentionOptions options;
  Activation activation;
  LayerNorm self_norm, cross_norm, final_norm;
  Linear qkv, self_out, cross_q, cross_kv, cross_out, fc1, fc2;

  Block(const WhisperDecoderConfig& c, const Weights& w, std::int64_t i)
      : layer(i),
        width(c.width),
        options{.heads = c.heads, .dropout = c.attention_dropout},
        activation(c.activation),
        self_norm(w.at("self_attn_layer_norm"), width, kEps),
        cross_norm(w.at("encoder_attn_layer_norm"), width, kEps),
        final_norm(w.at("final_layer_norm"), width, kEps),
        qkv(Linear::concat({{w.at("self_attn.q_proj"), width},
                            {w.at("self_attn.k_proj"), width, Linear::Bias::none},
                            {int8_at_least(w.at("self_attn.v_proj")), width}},
                           width)),
        self_out(w.at("self_attn.out_proj"), width, width),
        cross_q(w.at("encoder_attn.q_proj"), width, width),
        cross_kv(Linear::concat({{w.at("encoder_attn.k_proj"), width, Linear::Bias::none},
                                 {w.at("encoder_attn.v_proj"), width}},
                                width)),
        cross_out(w.at("encoder_attn.out_proj"), width, width),
        fc1(w.at("fc1"), width, c.inner),
        fc2(w.at("fc2"), c.inner, width) {
    options.rounded = qkv.rounds();
  }

  // x = x + Attn(LN(x));  x = x + Cross(LN(x), memory);  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, Tensor x /*[N, D]*/, const BlockRows& rows) const {
    const Tensor h = qkv(ctx, self_norm(ctx, x));
    const Tensor a = self_attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                                    h.columns(2 * width, 3 * width), layer, rows, options);
    x = self_out(ctx, a, {.residual = wanted_rows(ctx, x, rows)});
    const Tensor c = cross_attention(ctx, cross_q(ctx, cross_norm(ctx, x)), layer, rows, options);
    x = cross_out(ctx, c, {.residual = x});
    const Tensor m = fc1(ctx, final_norm(ctx, x), {.activation = activation});
    return fc2(ctx, m, {.residual = x});
  }
};

class WhisperDecoder : public LanguageModel {
 public:
  WhisperDecoder(const Config& config, const Weights& w)
      : c_(config),
        tokens_(w.at("embed_tokens"), c_.vocab, c_.width),
        positions_(w.get_f32("embed_positions.weight", {c_.positions, c_.width})),
        norm_(w.at("layer_norm"), c_.width, kEps),
        head_(tokens_.as_linear()) {
    w.release_pages();  // the head is the largest weight, and packed now
    for (std::int64_t i = 0; i < c_.layers; ++i) blocks_.emplace_back(c_, w.at("layers").at(i), i);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t vocab_size() const override { return c_.vocab; }
  std::int64_t max_positions() const override { return c_.positions; }
  bool has_cross_attention() const override { return true; }
  KvCache new_cache() const override { return cache_for(blocks_, cache_numbers()); }

  Tensor embed(Context& ctx, std::span<const std::int32_t> ids) const override {
    const Tensor rows = tokens_(ctx, ids);
    return c_.scale_embedding ? scaled(ctx, rows, std::sqrt(static_cast<float>(c_.width))) : rows;
  }

  void set_memory(Context& ctx, const Tensor& memory, KvCache& cache) const override {
    for (const Block& block : blocks_) {
      const Tensor kv = block.cross_kv(ctx, memory);
      cache.layer(block.layer)
          .set_memory(ctx, kv.columns(0, c_.width), kv.columns(c_.width, 2 * c_.width));
    }
  }

  Tensor forward(Context& ctx, const Tensor& rows, std::span<const Sequence> sequences,
                 Outputs outputs) const override {
    check_sequences(rows, sequences, c_.positions);
    const Tensor x = add_positions(ctx, rows, positions_, sequences);
    return norm_(ctx, run_blocks(ctx, blocks_, x, sequences, outputs));
  }

  const Linear& head() const override { return head_; }

 private:
  WhisperDecoderConfig c_;
  Embedding tokens_;
  Tensor positions_;
  std::vector<Block> blocks_;
  LayerNorm norm_;
  Linear head_;
};

}  // namespace

LanguageFamily whisper_family() {
  return {{"whisper"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<LanguageModel> {
            return std::make_unique<WhisperDecoder>(config, weights);
          },
          [](const Config& config) { return WhisperDecoderConfig(config).width; }};
}

}  // namespace tessera::text
