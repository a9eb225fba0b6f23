#include "text/text_tower.h"

#include <algorithm>

#include "core/error.h"

namespace tessera::text {
namespace {

constexpr EncoderConfig kClip{.width = 512,
                              .layers = 12,
                              .heads = 8,
                              .inner = 2048,
                              .eps = 1e-5,
                              .activation = Activation::quick_gelu,
                              .causal = true};
constexpr EncoderConfig kSiglip{.width = 768,
                                .layers = 12,
                                .heads = 12,
                                .inner = 3072,
                                .eps = 1e-6,
                                .activation = Activation::gelu_tanh};
// The end token that configs named before HF knew CLIP's: there the row of the highest id counts,
// which CLIP's end token is.
constexpr std::int64_t kOldEnd = 2;

bool is_siglip(const Config& config) {
  const std::string type = config.string("model_type", "clip_text_model");
  if (type == "siglip_text_model") return true;
  if (type == "clip_text_model") return false;
  throw UnsupportedError(concat(config.where(), ": no text tower of model_type \"", type,
                                "\"; known are clip_text_model, siglip_text_model"));
}

}  // namespace

TextTower::TextTower(const Config& config, const Weights& weights)
    : c_(EncoderConfig::read(config, is_siglip(config) ? kSiglip : kClip)) {
  const bool siglip = is_siglip(config);
  const Weights w =
      weights.has("text_model.final_layer_norm.weight") ? weights.at("text_model") : weights;
  const std::int64_t vocab =
      config.bounded("vocab_size", siglip ? 32000 : 49408, 1, std::int64_t{1} << 24);
  const std::int64_t length =
      config.bounded("max_position_embeddings", siglip ? 64 : 77, 1, std::int64_t{1} << 20);
  tokens_ = Embedding(w.at("embeddings.token_embedding"), vocab, c_.width);
  positions_ = w.get_f32("embeddings.position_embedding.weight", {length, c_.width});
  w.ignore("embeddings.position_ids");  // a buffer that old checkpoints carry
  blocks_ = encoder_blocks(c_, w.at("encoder.layers"));
  norm_ = LayerNorm(w.at("final_layer_norm"), c_.width, c_.eps);
  if (siglip) {
    head_ = Linear(w.at("head"), c_.width, config.bounded("projection_size", c_.width, 1, 1 << 16));
    filler_ = static_cast<std::int32_t>(config.bounded("pad_token_id", 1, 0, vocab - 1));
    return;
  }
  end_ = static_cast<std::int32_t>(config.bounded("eos_token_id", 49407, 0, 1 << 24));
  pool_ = end_ == kOldEnd ? Pool::highest_id : Pool::first_end;
}

bool TextTower::is_complete(std::span<const std::int32_t> ids) const {
  return pool_ == Pool::first_end ? std::ranges::count(ids, end_) > 0 : !ids.empty();
}

std::int64_t TextTower::pooled_row(std::span<const std::int32_t> ids) const {
  if (pool_ == Pool::last) return std::ssize(ids) - 1;
  if (pool_ == Pool::highest_id) return std::ranges::max_element(ids) - ids.begin();
  const auto end = std::ranges::find(ids, end_);
  return end == ids.end() ? 0 : end - ids.begin();  // HF takes the first row, too
}

Tensor TextTower::encode(Context& ctx, std::span<const std::vector<std::int32_t>> texts) const {
  std::vector<std::int32_t> ids, places, pooled;
  std::vector<std::int64_t> begin = {0};
  for (const std::vector<std::int32_t>& text : texts) {
    if (text.empty() || std::ssize(text) > max_positions()) {
      throw ArgumentError(
          concat("a text of ", text.size(), " tokens; expected 1 to ", max_positions()));
    }
    pooled.push_back(static_cast<std::int32_t>(begin.back() + pooled_row(text)));
    for (std::size_t i = 0; i < text.size(); ++i) places.push_back(static_cast<std::int32_t>(i));
    ids.insert(ids.end(), text.begin(), text.end());
    begin.push_back(std::ssize(ids));
  }
  if (texts.empty()) return Tensor::zeros({0, width()});
  const Tensor x = add(ctx, tokens_(ctx, ids), gather_rows(ctx, positions_, places));
  const Tensor rows = norm_(ctx, through_blocks(ctx, blocks_, x, begin));
  ctx.observe("last_hidden", rows);
  const Tensor own = gather_rows(ctx, rows, pooled);
  return head_ ? head_(ctx, own) : own;
}

}  // namespace tessera::text
