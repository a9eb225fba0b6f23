#include "core/encoder.h"

#include "core/error.h"

namespace tessera {

EncoderConfig EncoderConfig::read(const Config& c, const EncoderConfig& d) {
  EncoderConfig out = d;
  out.width = c.bounded("hidden_size", d.width, 1, 1 << 16);
  out.layers = c.bounded("num_hidden_layers", d.layers, 0, 1024);
  out.heads = c.bounded("num_attention_heads", d.heads, 1, 1024);
  out.inner = c.bounded("intermediate_size", d.inner, 1, 1 << 18);
  out.eps = c.number("layer_norm_eps", d.eps);
  if (c.has("hidden_act")) out.activation = activation_from_name(c.string("hidden_act"));
  if (out.width % out.heads != 0)
    throw FormatError(
        concat(c.where(), ": ", out.heads, " heads do not divide a width of ", out.width));
  return out;
}

EncoderMlp::EncoderMlp(const EncoderConfig& c, const Weights& w)
    : activation(c.activation),
      fc1(w.at("fc1"), c.width, c.inner),
      fc2(w.at("fc2"), c.inner, c.width) {}

Tensor EncoderMlp::operator()(Context& ctx, const Tensor& x, const LayerNorm& norm) const {
  return fc2(ctx, fc1(ctx, x, {.norm = &norm, .activation = activation}), {.residual = x});
}

EncoderBlock::EncoderBlock(const EncoderConfig& c, const Weights& w)
    : width(c.width),
      options{.heads = c.heads, .causal = c.causal},
      norm1(w.at("layer_norm1"), width, c.eps),
      norm2(w.at("layer_norm2"), width, c.eps),
      qkv(Linear::concat({{w.at("self_attn.q_proj"), width},
                          {w.at("self_attn.k_proj"), width},
                          {w.at("self_attn.v_proj"), width}},
                         width)),
      attention_out(w.at("self_attn.out_proj"), width, width),
      mlp(c, w.at("mlp")) {
  options.rounded = qkv.rounds();
  options.in_bytes = qkv.in_bytes();
}

// x = x + Attn(LN(x));  x = x + MLP(LN(x))
Tensor EncoderBlock::operator()(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const {
  const Tensor h = qkv(ctx, x, {.norm = &norm1});
  const Tensor a = attention(ctx, h.columns(0, width), h.columns(width, 2 * width),
                             h.columns(2 * width, 3 * width), options, begin);
  x = attention_out(ctx, a, {.residual = x});
  return mlp(ctx, x, norm2);
}

std::vector<EncoderBlock> encoder_blocks(const EncoderConfig& config, const Weights& w) {
  std::vector<EncoderBlock> blocks;
  for (std::int64_t i = 0; i < config.layers; ++i) blocks.emplace_back(config, w.at(i));
  return blocks;
}

}  // namespace tessera
