// Llama (Touvron et al. 2023) and what is built like it (Llama 2 and 3, SmolLM2, TinyLlama), as HF
// transformers' LlamaForCausalLM.
#include "core/error.h"
#include "core/layers.h"
#include "text/decoder.h"
#include "text/language_model.h"

namespace tessera::text {
namespace {

struct LlamaConfig {
  std::int64_t width, layers, heads, kv_heads, head, inner, positions, vocab;
  double eps;
  Activation activation;
  bool attention_bias, mlp_bias, tied;
  float attention_dropout;

  explicit LlamaConfig(const Config& c)
      : width(c.bounded("hidden_size", 4096, 1, 1 << 17)),
        layers(c.bounded("num_hidden_layers", 32, 0, 4096)),
        heads(c.bounded("num_attention_heads", 32, 1, 4096)),
        kv_heads(c.bounded("num_key_value_heads", heads, 1, 4096)),
        head(c.bounded("head_dim", width / heads, 1, 1 << 14)),
        inner(c.bounded("intermediate_size", 11008, 1, 1 << 20)),
        positions(c.bounded("max_position_embeddings", 2048, 1, 1 << 24)),
        vocab(c.bounded("vocab_size", 32000, 1, 1 << 24)),
        eps(c.number("rms_norm_eps", 1e-6)),
        activation(activation_from_name(c.string("hidden_act", "silu"))),
        attention_bias(c.boolean("attention_bias", false)),
        mlp_bias(c.boolean("mlp_bias", false)),
        tied(c.boolean("tie_word_embeddings", false)),
        attention_dropout(static_cast<float>(c.number("attention_dropout", 0.0))) {
    if (heads % kv_heads != 0) {
      throw FormatError(concat(c.where(), ": ", heads, " heads can't share ", kv_heads,
                               " key and value heads evenly"));
    }
  }
};

/// The config and the file must agree on biases: one without the other is another model.
Linear::Bias bias_of(const Weights& layer, const char* key, bool wanted) {
  if (layer.has("bias") != wanted) {
    throw FormatError(concat(layer.where("bias"), wanted ? ": missing, but " : ": there, but ", key,
                             wanted ? " is true" : " is false", " in config.json"));
  }
  return wanted ? Linear::Bias::required : Linear::Bias::none;
}

Linear::Part attention_part(const LlamaConfig& c, const Weights& layer, std::int64_t out) {
  return {layer, out, bias_of(layer, "attention_bias", c.attention_bias)};
}

Linear mlp_part(const LlamaConfig& c, const Weights& layer, std::int64_t in, std::int64_t out) {
  return {layer, in, out, bias_of(layer, "mlp_bias", c.mlp_bias)};
}

/// Where several heads share keys, these are few numbers on which much depends (bench/NOTES.md).
Weights keys_from(const LlamaConfig& c, const Weights& layer) {
  return c.kv_heads < c.heads ? int8_at_least(layer) : layer;
}

struct Block {
  std::int64_t layer, queries, keys;
  AttentionOptions options;
  Activation activation;
  RmsNorm input_norm, post_attention_norm;
  Linear qkv, attention_out, gate, up, down;

  Block(const LlamaConfig& c, const Weights& w, std::int64_t i)
      : layer(i),
        queries(c.heads * c.head),
        keys(c.kv_heads * c.head),
        options{.heads = c.heads, .kv_heads = c.kv_heads, .dropout = c.attention_dropout},
        activation(c.activation),
        input_norm(w.at("input_layernorm"), c.width, c.eps),
        post_attention_norm(w.at("post_attention_layernorm"), c.width, c.eps),
        qkv(Linear::concat({attention_part(c, w.at("self_attn.q_proj"), queries),
                            attention_part(c, keys_from(c, w.at("self_attn.k_proj")), keys),
                            attention_part(c, int8_at_least(w.at("self_attn.v_proj")), keys)},
                           c.width)),
        attention_out(
            Linear::concat({attention_part(c, w.at("self_attn.o_proj"), c.width)}, queries)),
        gate(mlp_part(c, w.at("mlp.gate_proj"), c.width, c.inner)),
        up(mlp_part(c, w.at("mlp.up_proj"), c.width, c.inner)),
        down(mlp_part(c, w.at("mlp.down_proj"), c.inner, c.width)) {
    options.rounded = qkv.rounds();
    options.in_bytes = qkv.in_bytes();
    w.ignore("self_attn.rotary_emb.inv_freq");  // a buffer that old checkpoints carry
  }

  // x = x + Attn(rope(qk), v of RMS(x));  x = x + Down(act(Gate(h)) * Up(h)), h = RMS(x)
  Tensor operator()(Context& ctx, Tensor x /*[N, D]*/, const BlockRows& rows, const Rope& rope,
                    const Tensor& angles) const {
    const Tensor h = qkv(ctx, input_norm(ctx, x));
    const Tensor turned = rope(ctx, h.columns(0, queries + keys), angles);
    const Tensor a =
        self_attention(ctx, turned.columns(0, queries), turned.columns(queries, queries + keys),
                       h.columns(queries + keys, queries + 2 * keys), layer, rows, options);
    x = attention_out(ctx, a, {.residual = wanted_rows(ctx, x, rows)});
    const Tensor m = post_attention_norm(ctx, x);
    const Tensor gated = multiply(ctx, gate(ctx, m, {.activation = activation}), up(ctx, m));
    return down(ctx, gated, {.residual = x});
  }
};

class Llama : public LanguageModel {
 public:
  Llama(const Config& config, const Weights& weights) : c_(config), rope_(config, c_.head) {
    const Weights w = weights.has("model.embed_tokens.weight") ? weights.at("model") : weights;
    tokens_ = Embedding(w.at("embed_tokens"), c_.vocab, c_.width);
    for (std::int64_t i = 0; i < c_.layers; ++i) blocks_.emplace_back(c_, w.at("layers").at(i), i);
    norm_ = RmsNorm(w.at("norm"), c_.width, c_.eps);
    head_ = read_head(weights, tokens_, c_.tied);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t vocab_size() const override { return c_.vocab; }
  std::int64_t max_positions() const override { return c_.positions; }
  KvCache new_cache() const override { return cache_for(blocks_, cache_numbers()); }

  Tensor embed(Context& ctx, std::span<const std::int32_t> ids) const override {
    return tokens_(ctx, ids);
  }

  Tensor forward(Context& ctx, const Tensor& rows, std::span<const Sequence> sequences,
                 Outputs outputs) const override {
    check_sequences(rows, sequences, c_.positions);
    const Tensor angles = rope_.angles(ctx, positions_of(ctx, sequences));
    return norm_(ctx, run_blocks(ctx, blocks_, rows, sequences, outputs, rope_, angles));
  }

  const Linear& head() const override { return head_; }

 private:
  LlamaConfig c_;
  Rope rope_;
  Embedding tokens_;
  std::vector<Block> blocks_;
  RmsNorm norm_;
  Linear head_;
};

}  // namespace

LanguageFamily llama_family() {
  return {{"llama"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<LanguageModel> {
            return std::make_unique<Llama>(config, weights);
          },
          [](const Config& config) { return LlamaConfig(config).width; }};
}

}  // namespace tessera::text
