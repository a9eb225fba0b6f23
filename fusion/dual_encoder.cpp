#include "fusion/dual_encoder.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/layers.h"
#include "core/profile.h"
#include "text/sampler.h"

namespace tessera::fusion {
namespace {

constexpr std::size_t kImagesAtOnce = 16, kTextsAtOnce = 64;

/// encode() of a few at a time, one below the other.
template <class Item, class Encode>
Tensor in_passes(Context& ctx, std::span<const Item> items, std::size_t most, std::int64_t width,
                 const Encode& encode) {
  if (items.empty()) return Tensor::zeros({0, width});
  std::vector<Tensor> parts;
  for (std::size_t at = 0; at < items.size(); at += most)
    parts.push_back(encode(items.subspan(at, std::min(most, items.size() - at))));
  return join_rows(ctx, parts);
}

/// A projection without bias; none where the checkpoint has none.
Linear projection(const Weights& w, const char* name, std::int64_t from, std::int64_t to) {
  if (!w.has(concat(name, ".weight"))) return {};
  return {w.at(name), from, to, Linear::Bias::none};
}

Tensor one_number(const Weights& w, const char* name) {
  const Tensor stored = w.get(name);
  if (stored.numel() != 1)
    throw ShapeError(concat(w.where(name), ": ", stored.shape().str(), "; expected one number"));
  return w.get_f32(name, stored.shape()).reshape({1});
}

}  // namespace

void load_dual(const CheckpointFiles& files, Model& model) {
  const Config &c = files.config, vision = c.child("vision_config");
  const Weights w = exact_if_automatic(files.weights);
  // Configs of old checkpoints do not name the kind of their towers.
  model.vision = vision.has("model_type") ? vision::load_tower(vision, w.at("vision_model"))
                                          : vision::load_tower(c, w);
  model.image_processor.emplace(files.preprocessor_config);
  DualParts parts{text::TextTower(c.child("text_config"), w.at("text_model")), {}, {}, {}, {}};
  const std::int64_t width = c.bounded("projection_dim", 512, 1, 1 << 16);
  parts.image_projection = projection(w, "visual_projection", model.vision->width(), width);
  parts.text_projection = projection(w, "text_projection", parts.text.width(), width);
  const auto out = [](const Linear& last, std::int64_t else_width) {
    return last ? last.out() : else_width;
  };
  parts.width = out(parts.image_projection, model.vision->width());
  if (const std::int64_t other = out(parts.text_projection, parts.text.width());
      other != parts.width) {
    throw FormatError(concat(c.where(), ": images become ", parts.width, " numbers, but texts ",
                             other, "; they need one space"));
  }
  parts.logit_scale = one_number(w, "logit_scale");
  if (w.has("logit_bias")) parts.logit_bias = one_number(w, "logit_bias");
  model.dual.emplace(std::move(parts));
}

DualEncoder::DualEncoder(std::shared_ptr<const Model> model) : model_(std::move(model)) {
  if (model_->dual) return;
  throw UnsupportedError(concat(model_->path.string(), ": is of type ", model_->family,
                                "; images and texts are brought into one space by clip, siglip and "
                                "vision-text-dual-encoder checkpoints"));
}

std::int64_t DualEncoder::width() const { return model_->dual->width; }

Tensor DualEncoder::image_vectors(Context& ctx, std::span<const Tensor> rows) const {
  const Tensor pooled = model_->vision->pool(ctx, rows);
  const Linear& projection = model_->dual->image_projection;
  return projection ? projection(ctx, pooled) : pooled;
}

Tensor DualEncoder::text_vectors(Context& ctx,
                                 std::span<const std::vector<std::int32_t>> texts) const {
  const StageScope scope(ctx, "text tower");
  const Tensor pooled = model_->dual->text.encode(ctx, texts);
  const Linear& projection = model_->dual->text_projection;
  return projection ? projection(ctx, pooled) : pooled;
}

Tensor DualEncoder::encode_pixels(Context& ctx, std::span<const Tensor> pixels) const {
  return in_passes(ctx, pixels, kImagesAtOnce, width(), [&](std::span<const Tensor> part) {
    const std::vector<Tensor> rows = model_->vision->encode(ctx, part);
    return unit_norm(width())(ctx, image_vectors(ctx, rows));
  });
}

Tensor DualEncoder::encode_images(Context& ctx, std::span<const vision::Image> images) const {
  return in_passes(ctx, images, kImagesAtOnce, width(), [&](std::span<const vision::Image> part) {
    std::vector<Tensor> pixels;
    for (const vision::Image& image : part) pixels.push_back(model_->preprocess(ctx, image));
    return encode_pixels(ctx, pixels);
  });
}

Tensor DualEncoder::encode_ids(Context& ctx,
                               std::span<const std::vector<std::int32_t>> texts) const {
  return in_passes(ctx, texts, kTextsAtOnce, width(),
                   [&](auto part) { return unit_norm(width())(ctx, text_vectors(ctx, part)); });
}

Tensor DualEncoder::encode_texts(Context& ctx, std::span<const std::string> texts) const {
  std::vector<std::vector<std::int32_t>> ids;
  for (const std::string& text : texts) ids.push_back(ids_of(text));
  return encode_ids(ctx, ids);
}

std::vector<std::int32_t> DualEncoder::ids_of(const std::string& text) const {
  const text::TextTower& tower = model_->dual->text;
  if (!model_->tokenizer) {
    throw UnsupportedError(
        concat(model_->path.string(), ": has no tokenizer.json of a kind that is read (BPE)"));
  }
  std::vector<std::int32_t> ids = model_->tokenizer->encode(text, {.add_special_tokens = true});
  const auto most = static_cast<std::size_t>(tower.max_positions());
  if (ids.size() > most) {  // its beginning, and the end token
    const std::int32_t end = ids.back();
    ids.resize(most);
    ids.back() = end;
  }
  if (!tower.is_complete(ids) && tower.filler() < 0) {
    throw UnsupportedError(concat(model_->path.string(),
                                  ": its tokenizer does not end a text with the token that "
                                  "config.json's text_config.eos_token_id names"));
  }
  if (tower.filler() >= 0) ids.resize(most, tower.filler());
  return ids;
}

Tensor DualEncoder::cosines(Context& ctx, const Tensor& images, const Tensor& texts) const {
  return Linear(texts, {}, Precision::in_place)(ctx, images);
}

Tensor DualEncoder::logits(Context& ctx, const Tensor& cosines) const {
  const DualParts& parts = *model_->dual;
  Tensor out = scaled(ctx, cosines, std::exp(parts.logit_scale.data()[0]));
  if (!parts.logit_bias) return out;
  for (std::int64_t i = 0; i < out.numel(); ++i) out.data()[i] += parts.logit_bias.data()[0];
  return out;
}

Tensor DualEncoder::probabilities(Context& ctx, const Tensor& cosines) const {
  Tensor out = logits(ctx, cosines);
  if (model_->dual->logit_bias) return activate(ctx, Activation::sigmoid, out);
  for (std::int64_t i = 0; i < out.dim(0); ++i) {
    float* row = out[i].data();
    std::ranges::transform(text::softmax({row, static_cast<std::size_t>(out.dim(1))}), row,
                           [](double share) { return static_cast<float>(share); });
  }
  return out;
}

}  // namespace tessera::fusion
