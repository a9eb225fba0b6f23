#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "fusion/model.h"
#include "vision/image.h"

namespace tessera::fusion {

/// Images and texts as vectors of one space, in which those that belong together are close (CLIP,
/// Radford et al. 2021; SigLIP, Zhai et al. 2023). Const and shared; calls may run at the same
/// time, each with a Context of its own.
class DualEncoder {
 public:
  /// Throws UnsupportedError for a checkpoint that is no dual encoder.
  explicit DualEncoder(std::shared_ptr<const Model> model);

  const Model& model() const { return *model_; }
  std::int64_t width() const;  ///< P of a vector

  /// Images, preprocessed as the checkpoint says -> [N, P], each row of length 1: HF's
  /// `image_embeds`. In passes of several images.
  Tensor encode_images(Context& ctx, std::span<const vision::Image> images) const;
  /// Pixels [3, H, W] each -> the same.
  Tensor encode_pixels(Context& ctx, std::span<const Tensor> pixels) const;
  /// Texts -> [N, P], each row of length 1: HF's `text_embeds`. Texts longer than the tower's
  /// context are cut, as CLIPProcessor cuts them with truncation=True. Throws UnsupportedError
  /// without a tokenizer.
  Tensor encode_texts(Context& ctx, std::span<const std::string> texts) const;
  /// Texts as ids_of() has them -> the same.
  Tensor encode_ids(Context& ctx, std::span<const std::vector<std::int32_t>> texts) const;
  std::vector<std::int32_t> ids_of(const std::string& text) const;

  /// Vectors of length 1 [I, P] and [T, P] -> their cosines [I, T].
  Tensor cosines(Context& ctx, const Tensor& images, const Tensor& texts) const;
  /// Cosines [I, T] -> HF's `logits_per_image`: times exp(logit_scale), plus logit_bias.
  Tensor logits(Context& ctx, const Tensor& cosines) const;
  /// Cosines [I, T] -> how likely each text is an image's: shared among the texts (softmax), or,
  /// with a bias (SigLIP), of each for itself (sigmoid).
  Tensor probabilities(Context& ctx, const Tensor& cosines) const;

  /// What training compares: the projected vectors before they get a length of 1. `rows`: of the
  /// image tower, [T, D] each, or the first pooled_rows() of them.
  Tensor image_vectors(Context& ctx, std::span<const Tensor> rows) const;
  Tensor text_vectors(Context& ctx, std::span<const std::vector<std::int32_t>> texts) const;

 private:
  std::shared_ptr<const Model> model_;
};

/// Fills in the towers of a checkpoint whose tensors are vision_model.*, text_model.*, and where it
/// has them visual_projection, text_projection, logit_scale and logit_bias. For families.
void load_dual(const CheckpointFiles& files, Model& model);

}  // namespace tessera::fusion
