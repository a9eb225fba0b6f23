#pragma once
#include <array>
#include <cstdint>

#include "core/config.h"
#include "core/tensor.h"
#include "vision/image.h"

namespace tessera::vision {

/// Pillow's filters, by Pillow's numbers (preprocessor_config.json: `resample`).
enum class Resample { nearest = 0, lanczos = 1, bilinear = 2, bicubic = 3, box = 4, hamming = 5 };

/// Pillow's Image.resize on RGB, bit for bit.
Image resize(const Image& image, std::int64_t width, std::int64_t height, Resample filter);

/// Image preprocessing as the slow (Pillow) image processors of HF transformers do it: resize, center crop, rescale,
/// normalise. Reads preprocessor_config.json in its old (feature_extractor_type, integer size) and new keys.
class ImageProcessor {
 public:
  explicit ImageProcessor(const Config& preprocessor_config);
  /// -> [3, H, W] f32. Throws ShapeError where the result would be empty.
  Tensor operator()(const Image& image) const;

 private:
  bool do_resize_ = true, do_center_crop_ = false, do_rescale_ = true, do_normalize_ = true;
  // ... further members are the implementation's choice
};

}  // namespace tessera::vision
