#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/context.h"
#include "core/layers.h"
#include "core/tape.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::vision {

/// An image encoder: pixels in, one row for each patch (and class token) out. Const and shared.
class VisionTower {
 public:
  virtual ~VisionTower() = default;
  virtual std::int64_t width() const = 0;         ///< D of a row
  virtual std::int64_t class_tokens() const = 0;  ///< rows before those of the patches
  virtual std::int64_t patch_size() const = 0;    ///< pixels a side; patches lie in reading order
  /// pixels [3, H, W] -> last hidden states [T, D] after the final norm. Image sizes other than the
  /// config's have the position embedding interpolated (bicubic, as HF's interpolate_pos_encoding).
  Tensor encode(Context& ctx, const Tensor& pixels) const;
  /// Several images in one pass: each as it would be alone.
  std::vector<Tensor> encode(Context& ctx, std::span<const Tensor> pixels) const;
  /// Rows of encode() [T, D] -> one vector [D] for the whole image. Throws UnsupportedError where
  /// the checkpoint has no pooling head.
  Tensor pool(Context& ctx, const Tensor& rows) const;
  /// Of several images -> [N, D].
  virtual Tensor pool(Context& ctx, std::span<const Tensor> rows) const;
  /// How many of the rows pool() looks at, from the first one on; 0: at all of them.
  virtual std::int64_t pooled_rows() const { return 0; }
  /// Rows of encode() [T, D] -> class logits [1, classes]. Throws UnsupportedError where the
  /// checkpoint has no head.
  virtual Tensor class_logits(Context& ctx, const Tensor& rows) const;
  /// pixels [3, H, W] -> class logits [classes]. Throws UnsupportedError where the checkpoint has
  /// no head.
  Tensor classify(Context& ctx, const Tensor& pixels) const;
  /// Class names by index; empty without a head.
  virtual std::vector<std::string> labels() const { return {}; }

 protected:
  /// The first row of each image [N, D].
  static Tensor first_rows(Context& ctx, std::span<const Tensor> rows);

 private:
  /// Patches and what else there is, with positions: the rows that the first block sees [T, D].
  virtual Tensor embed(Context& ctx, const Tensor& pixels) const = 0;
  /// Rows of several images, one after the other (image i from begin[i] to begin[i + 1]), through
  /// all blocks and the final norm.
  virtual Tensor run(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const = 0;
};

/// How a tower is found: by `model_type` of its config.
struct VisionFamily {
  std::vector<std::string> model_types;
  std::unique_ptr<VisionTower> (*load)(const Config& config, const Weights& weights);
};
std::vector<VisionFamily> families();
/// Throws UnsupportedError naming the known types.
std::unique_ptr<VisionTower> load_tower(const Config& config, const Weights& weights);

}  // namespace tessera::vision
