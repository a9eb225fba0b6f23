// GPT-2 (Radford et al. 2019) as HF transformers' GPT2LMHeadModel, with cross-attention where the
// config has it.
#include <cmath>

#include "core/error.h"
#include "core/layers.h"
#include "text/decoder.h"
#include "text/language_model.h"

namespace tessera::text {
namespace {

struct Gpt2Config {
  std::int64_t width, layers, heads, inner, positions, vocab;
  double eps;
  float embedding_dropout, dropout, attention_dropout;
  Activation activation;
  bool scaled, inverse_layer, cross, tied;

  explicit Gpt2Config(const Config& c)
      : width(c.bounded("n_embd", c.integer("hidden_size", 768), 1, 1 << 17)),
        layers(c.bounded("n_layer", c.integer("num_hidden_layers", 12), 0, 4096)),
        heads(c.bounded("n_head", c.integer("num_attention_heads", 12), 1, 4096)),
        inner(c.bounded("n_inner", 4 * width, 1, 1 << 20)),
        positions(c.bounded("n_positions", 1024, 1, 1 << 24)),
        vocab(c.bounded("vocab_size", 50257, 1, 1 << 24)),
        eps(c.number("layer_norm_epsilon", 1e-5)),
        embedding_dropout(static_cast<float>(c.number("embd_pdrop", 0.1))),
        dropout(static_cast<float>(c.number("resid_pdrop", 0.1))),
        attention_dropout(static_cast<float>(c.number("attn_pdrop", 0.1))),
        activation(activation_from_name(c.string("activation_function", "gelu_new"))),
        scaled(c.boolean("scale_attn_weights", true)),
        inverse_layer(c.boolean("scale_attn_by_inverse_layer_idx", false)),
        cross(c.boolean("add_cross_attention", false)),
        tied(c.boolean("tie_word_embeddings", true)) {
    if (width % heads != 0)
      throw FormatError(concat(c.where(), ": ", heads, " heads do not divide a width of ", width));
  }
  AttentionOptions attention(std::int64_t layer) const {
    const float scale = scaled ? 1.0f / std::sqrt(static_cast<float>(width / heads)) : 1.0f;
    return {.heads = heads,
            .scale = inverse_layer ? scale / static_cast<float>(layer + 1) : scale,
            .dropout = attention_dropout};
  }
};

struct Block {
  std::int64_t layer, width;
  AttentionOptions options;
  Activation activation;
  float dropout;
  LayerNorm ln_1, ln_cross, ln_2;
  Linear qkv, attention_out, cross_q, cross_kv, cross_out, fc, out;

  Block(const Gpt2Config& c, const Weights& w, std::int64_t i)
      : layer(i),
        width(c.width),
        options(c.attention(i)),
        activation(c.activation),
        dropout(c.dropout),
        ln_1(w.at("ln_1"), width, c.eps),
        ln_2(w.at("ln_2"), width, c.eps),
        qkv(Linear::conv1d(w.at("attn.c_attn"), width, 3 * width, width)),
        attention_out(Linear::conv1d(w.at("attn.c_proj"), width, width)),
        fc(Linear::conv1d(w.at("mlp.c_fc"), width, c.inner)),
        out(Linear::conv1d(w.at("mlp.c_proj"), c.inner, width)) {
    options.rounded = qkv.rounds();
    options.in_bytes = qkv.in_bytes();
    if (c.cross) {
      ln_cross = LayerNorm(w.at("ln_cross_attn"), width, c.eps);
      cross_q = Linear::conv1d(w.at("crossattention.q_attn"), width, width);
      cross_kv = Linear::conv1d(w.at("crossattention.c_attn"), width, 2 * width);
      cross_out = Linear::conv1d(w.at("crossattention.c_proj"), width, width);
    }
    for (const char* buffer :
         {"attn.bias", "attn.masked_bias", "crossattention.bias", "crossattention.masked_bias"}) {
      w.ignore(buffer);  // causal masks that old checkpoints carry
    }
  }

  // x = x + Attn(LN(x));  x = x + Cross(LN(x), memory);  x = x + MLP(LN(x))
  Tensor operator()(Context& ctx, Tensor x /*[N, D]*/, const BlockRows& rows) const {
    const Tensor h = qkv(ctx, ln_1(ctx, x));
    const Tensor a = self_attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                                    h.columns(2 * width, 3 * width), layer, rows, options);
    x = attention_out(ctx, a, {.residual = wanted_rows(ctx, x, rows), .dropout = dropout});
    if (cross_q) {
      const Tensor c = cross_attention(ctx, cross_q(ctx, ln_cross(ctx, x)), layer, rows, options);
      x = cross_out(ctx, c, {.residual = x, .dropout = dropout});
    }
    const Tensor m = fc(ctx, ln_2(ctx, x), {.activation = activation});
    return out(ctx, m, {.residual = x, .dropout = dropout});
  }
};

class Gpt2 : public LanguageModel {
 public:
  Gpt2(const Config& config, const Weights& weights) : c_(config) {
    const Weights w = weights.has("transformer.wte.weight") ? weights.at("transformer") : weights;
    wte_ = Embedding(w.at("wte"), c_.vocab, c_.width);
    wpe_ = w.get_f32("wpe.weight", {c_.positions, c_.width});
    for (std::int64_t i = 0; i < c_.layers; ++i) blocks_.emplace_back(c_, w.at("h").at(i), i);
    ln_f_ = LayerNorm(w.at("ln_f"), c_.width, c_.eps);
    head_ = read_head(weights, wte_, c_.tied);
  }

  std::int64_t width() const override { return c_.width; }
  std::int64_t vocab_size() const override { return c_.vocab; }
  std::int64_t max_positions() const override { return c_.positions; }
  bool has_cross_attention() const override { return c_.cross; }
  KvCache new_cache() const override { return cache_for(blocks_, cache_numbers()); }

  Tensor embed(Context& ctx, std::span<const std::int32_t> ids) const override {
    return wte_(ctx, ids);
  }

  void set_memory(Context& ctx, const Tensor& memory, KvCache& cache) const override {
    if (!c_.cross) return LanguageModel::set_memory(ctx, memory, cache);
    for (const Block& block : blocks_) {
      const Tensor kv = block.cross_kv(ctx, memory);
      cache.layer(block.layer)
          .set_memory(ctx, kv.columns(0, c_.width), kv.columns(c_.width, 2 * c_.width));
    }
  }

  Tensor forward(Context& ctx, const Tensor& rows, std::span<const Sequence> sequences,
                 Outputs outputs) const override {
    check_sequences(rows, sequences, c_.positions);
    const Tensor x = dropout(ctx, add_positions(ctx, rows, wpe_, sequences), c_.embedding_dropout);
    return ln_f_(ctx, run_blocks(ctx, blocks_, x, sequences, outputs));
  }

  const Linear& head() const override { return head_; }

 private:
  Gpt2Config c_;
  Embedding wte_;
  Tensor wpe_;
  std::vector<Block> blocks_;
  LayerNorm ln_f_;
  Linear head_;
};

}  // namespace

LanguageFamily gpt2_family() {
  return {{"gpt2"},
          [](const Config& config, const Weights& weights) -> std::unique_ptr<LanguageModel> {
            return std::make_unique<Gpt2>(config, weights);
          },
          [](const Config& config) { return Gpt2Config(config).width; }};
}

}  // namespace tessera::text
