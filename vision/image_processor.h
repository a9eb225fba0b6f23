#pragma once
#include <array>
#include <cstdint>

#include "core/config.h"
#include "core/tensor.h"
#include "vision/image.h"

namespace tessera::vision {

/// Pillow's filters, by Pillow's numbers (preprocessor_config.json: `resample`).
enum class Resample { nearest = 0, lanczos = 1, bilinear = 2, bicubic = 3, box = 4, hamming = 5 };

/// Pillow's Image.resize on RGB, bit for bit. ShapeError where a side is not positive.
Image resize(const Image& image, std::int64_t width, std::int64_t height, Resample filter);

/// Image preprocessing as the Pillow-backed image processors of HF transformers do it: resize,
/// center crop, rescale, normalise. Reads preprocessor_config.json in its old
/// (feature_extractor_type, integer sizes) and new keys, for the processors (and feature
/// extractors) of ViT, DeiT, CLIP, SigLIP, BLIP, Bit and ConvNext, each with its own defaults; a
/// config that names no type is taken for ViT's. UnsupportedError for what would change the result
/// and is not done here; FormatError for values that make no sense.
class ImageProcessor {
 public:
  explicit ImageProcessor(const Config& preprocessor_config);
  /// -> [3, H, W] f32. Throws ShapeError where the result would be empty.
  Tensor operator()(const Image& image) const;

 private:
  /// What the picture is resized to.
  enum class Rule {
    none,           // it stays as it is
    exact,          // height_ x width_
    shortest_edge,  // the shorter side becomes shortest_, the other follows
    both_edges,     // the same, but the longer side at most longest_
  };
  struct Size {
    std::int64_t height, width;
  };

  void read_size(const Config& config, const Config& size, bool square);
  void read_crop(const Config& config, const Config& crop);
  void use_crop_share(const Config& config);
  void read_values(const Config& config, const std::array<double, 3>& mean,
                   const std::array<double, 3>& deviation);
  Size resized(const Image& image) const;

  Rule rule_ = Rule::none;
  Resample filter_ = Resample::bilinear;
  std::int64_t height_ = 0, width_ = 0, shortest_ = 0, longest_ = 0;
  bool crops_ = false;
  std::int64_t crop_height_ = 0, crop_width_ = 0;
  std::array<std::array<float, 256>, 3>
      values_{};  // what becomes of each 8-bit value of each colour
};

}  // namespace tessera::vision
