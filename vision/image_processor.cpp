#include "vision/image_processor.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "vision/resize.h"

namespace tessera::vision {
namespace {

using Colors = std::array<double, 3>;
constexpr Colors kHalf{0.5, 0.5, 0.5};
constexpr Colors kClipMean{0.48145466, 0.4578275, 0.40821073};
constexpr Colors kClipDeviation{0.26862954, 0.26130258, 0.27577711};
constexpr std::int64_t kMostSide = 65536;  // of what a config may ask for

/// What a processor does where its config is silent.
struct Defaults {
  std::string_view type;
  Resample filter;
  Colors mean, deviation;
  std::string_view size;  // as the config would have it
  std::int64_t crop;      // side of the center crop; 0: none
  bool square;            // an integer size is both sides, not the shorter edge
  bool crop_share;        // knows crop_pct
};

constexpr std::string_view kExact224 = R"({"size": {"height": 224, "width": 224}})";
constexpr std::string_view kExact256 = R"({"size": {"height": 256, "width": 256}})";
constexpr std::string_view kExact384 = R"({"size": {"height": 384, "width": 384}})";
constexpr std::string_view kShortest224 = R"({"size": {"shortest_edge": 224}})";
constexpr std::string_view kShortest384 = R"({"size": {"shortest_edge": 384}})";

constexpr Defaults kProcessors[] = {
    {"ViT", Resample::bilinear, kHalf, kHalf, kExact224, 0, true, false},
    {"DeiT", Resample::bicubic, kHalf, kHalf, kExact256, 224, true, false},
    {"CLIP", Resample::bicubic, kClipMean, kClipDeviation, kShortest224, 224, false, false},
    {"Siglip", Resample::bicubic, kHalf, kHalf, kExact224, 0, false, false},
    {"Blip", Resample::bicubic, kClipMean, kClipDeviation, kExact384, 0, true, false},
    {"Bit", Resample::bicubic, kClipMean, kClipDeviation, kShortest224, 224, false, false},
    {"ConvNext", Resample::bicubic, kHalf, kHalf, kShortest384, 0, false, true},
};

void drop_suffix(std::string_view& name, std::string_view suffix) {
  if (name.ends_with(suffix)) name.remove_suffix(suffix.size());
}

const Defaults& find_defaults(const Config& config) {
  const std::string stored =
      config.string("image_processor_type", config.string("feature_extractor_type", "ViT"));
  std::string_view name = stored;
  for (const std::string_view suffix : {"Fast", "Pil", "ImageProcessor", "FeatureExtractor"})
    drop_suffix(name, suffix);
  for (const Defaults& processor : kProcessors)
    if (processor.type == name) return processor;
  std::string known;
  for (const Defaults& processor : kProcessors)
    known += concat(known.empty() ? "" : ", ", processor.type);
  throw UnsupportedError(
      concat(config.where(), ": image processor ", stored, "; known are those of ", known));
}

bool has_exactly(const Config& object, std::initializer_list<std::string_view> keys) {
  return object.size() == keys.size() &&
         std::all_of(keys.begin(), keys.end(),
                     [&](std::string_view key) { return object.has(key); });
}

std::int64_t side(const Config& place, std::string_view key) {
  return place.bounded(key, 0, 1, kMostSide);
}

/// A side given as a plain number, or as one element of a list.
std::int64_t side(const Config& number) {
  const std::int64_t value = number.as_integer();
  if (value < 1 || value > kMostSide)
    throw FormatError(concat(number.where(), ": ", value, "; expected 1 to ", kMostSide));
  return value;
}

Colors colors(const Config& config, std::string_view key, const Colors& fallback) {
  const std::vector<double> values = config.numbers(key);
  if (values.empty()) return fallback;
  if (values.size() == 1) return {values[0], values[0], values[0]};
  if (values.size() != 3)
    throw FormatError(
        concat(config.where(), ": ", key, ": expected 3 numbers, found ", values.size()));
  return {values[0], values[1], values[2]};
}

}  // namespace

ImageProcessor::ImageProcessor(const Config& config) {
  const Defaults& defaults = find_defaults(config);
  if (config.boolean("do_pad", false))
    throw UnsupportedError(concat(config.where(), ": do_pad: pictures are not padded here"));
  const std::int64_t filter =
      config.integer("resample", static_cast<std::int64_t>(defaults.filter));
  if (filter < 0 || filter > 5)
    throw UnsupportedError(
        concat(config.where(), ": resample: filter ", filter, "; known are Pillow's 0 to 5"));
  filter_ = static_cast<Resample>(filter);

  const Config fallback = Config::parse(defaults.size, config.where());
  if (config.boolean("do_resize", true)) {
    read_size(config, (config.has("size") ? config : fallback).at("size"),
              config.boolean("default_to_square", defaults.square));
    if (config.boolean("use_square_size",
                       false)) {  // an old key of CLIP's: that processor's own default, as a square
      rule_ = Rule::exact;
      height_ = width_ = 224;
    }
    if (defaults.crop_share) use_crop_share(config);
  }
  if (config.boolean("do_center_crop", defaults.crop > 0)) {
    if (crops_)
      throw UnsupportedError(concat(config.where(), ": do_center_crop together with crop_pct"));
    crops_ = true;
    crop_height_ = crop_width_ = defaults.crop;
    if (config.has("crop_size")) read_crop(config, config.at("crop_size"));
    if (crop_height_ == 0)
      throw FormatError(concat(config.where(), ": do_center_crop without crop_size"));
  }
  read_values(config, colors(config, "image_mean", defaults.mean),
              colors(config, "image_std", defaults.deviation));
}

void ImageProcessor::read_size(const Config& config, const Config& size, bool square) {
  if (size.is_object()) {
    if (has_exactly(size, {"height", "width"})) {
      rule_ = Rule::exact;
      height_ = side(size, "height");
      width_ = side(size, "width");
    } else if (has_exactly(size, {"shortest_edge"}) ||
               has_exactly(size, {"shortest_edge", "longest_edge"})) {
      rule_ = size.has("longest_edge") ? Rule::both_edges : Rule::shortest_edge;
      shortest_ = side(size, "shortest_edge");
      if (size.has("longest_edge")) longest_ = side(size, "longest_edge");
    } else {
      throw UnsupportedError(
          concat(size.where(), ": ", size.dump(),
                 "; known are height and width, or shortest_edge with or without longest_edge"));
    }
  } else if (size.is_array()) {
    if (size.size() != 2)
      throw FormatError(concat(size.where(), ": expected height and width, found ", size.dump()));
    rule_ = Rule::exact;
    height_ = side(size[0]);
    width_ = side(size[1]);
  } else {
    rule_ = square ? Rule::exact : Rule::shortest_edge;
    height_ = width_ = shortest_ = side(size);
  }
}

void ImageProcessor::read_crop(const Config& config, const Config& crop) {
  if (crop.is_object()) {
    if (!has_exactly(crop, {"height", "width"}))
      throw FormatError(concat(crop.where(), ": expected height and width, found ", crop.dump()));
    crop_height_ = side(crop, "height");
    crop_width_ = side(crop, "width");
  } else if (crop.is_array()) {
    if (crop.size() != 2)
      throw FormatError(concat(crop.where(), ": expected height and width, found ", crop.dump()));
    crop_height_ = side(crop[0]);
    crop_width_ = side(crop[1]);
  } else {
    crop_height_ = crop_width_ = side(crop);
  }
}

/// ConvNext: below 384 pixels a somewhat larger picture is made and its center cut out; from there
/// on the picture is squeezed to a square.
void ImageProcessor::use_crop_share(const Config& config) {
  if (rule_ != Rule::shortest_edge)
    throw FormatError(concat(config.where(), ": size: expected shortest_edge"));
  if (shortest_ >= 384) {
    rule_ = Rule::exact;
    height_ = width_ = shortest_;
    return;
  }
  const double share = config.number("crop_pct", 224.0 / 256.0);
  if (!(share > 0.01 && share <= 1.0))
    throw FormatError(concat(config.where(), ": crop_pct: ", share, "; expected 0.01 to 1"));
  crops_ = true;
  crop_height_ = crop_width_ = shortest_;
  shortest_ = static_cast<std::int64_t>(static_cast<double>(shortest_) / share);
}

void ImageProcessor::read_values(const Config& config, const Colors& mean,
                                 const Colors& deviation) {
  const bool rescales = config.boolean("do_rescale", true),
             normalizes = config.boolean("do_normalize", true);
  const double factor = config.number("rescale_factor", 1.0 / 255.0);
  for (std::size_t c = 0; c < 3; ++c) {
    if (normalizes && static_cast<float>(deviation[c]) == 0.0f)
      throw FormatError(concat(config.where(), ": image_std: expected numbers other than 0"));
    for (std::size_t value = 0; value < 256; ++value) {  // in the steps and precisions of numpy
      float& result = values_[c][value];
      result = static_cast<float>(static_cast<double>(value) * (rescales ? factor : 1.0));
      if (normalizes)
        result = (result - static_cast<float>(mean[c])) / static_cast<float>(deviation[c]);
    }
  }
}

ImageProcessor::Size ImageProcessor::resized(const Image& image) const {
  const std::int64_t height = image.height, width = image.width;
  if (rule_ == Rule::none) return {height, width};
  if (rule_ == Rule::exact) return {height_, width_};
  const double shorter = static_cast<double>(std::min(height, width)),
               longer = static_cast<double>(std::max(height, width));
  std::int64_t edge = shortest_;
  double exact_edge = static_cast<double>(edge);
  if (rule_ == Rule::both_edges) {
    const double longest = static_cast<double>(longest_);
    if (longer / shorter * exact_edge > longest) {
      exact_edge = longest * shorter / longer;
      edge =
          static_cast<std::int64_t>(std::nearbyint(exact_edge));  // half to even, as Python's round
    }
    if (std::min(height, width) == edge) return {height, width};
  }
  const std::int64_t other = static_cast<std::int64_t>(exact_edge * longer / shorter);
  return width < height ? Size{other, edge} : Size{edge, other};
}

Tensor ImageProcessor::operator()(const Image& image) const {
  const Size size = resized(image);
  const std::int64_t height = crops_ ? crop_height_ : size.height,
                     width = crops_ ? crop_width_ : size.width;
  const auto half = [](std::int64_t excess) {
    return excess < 0 ? -((1 - excess) / 2) : excess / 2;
  };  // towards -infinity
  const Window window{crops_ ? half(size.width - width) : 0,
                      crops_ ? half(size.height - height) : 0, width, height};
  if (height > 0 && width > ImageLimits().max_pixels / height)
    throw ShapeError(concat("image processor: a picture of ", image.width, " x ", image.height,
                            " would become ", width, " x ", height, ", more than ",
                            ImageLimits().max_pixels, " pixels"));
  const Image part = resize_window(image, size.width, size.height, filter_, window);

  Tensor out = Tensor::empty({3, height, width});
  const std::int64_t pixels = height * width;
  for (std::size_t c = 0; c < 3; ++c) {
    float* to = out.data() + static_cast<std::int64_t>(c) * pixels;
    const std::uint8_t* from = part.pixels.data() + c;
    for (std::int64_t i = 0; i < pixels; ++i) to[i] = values_[c][from[i * 3]];
  }
  return out;
}

}  // namespace tessera::vision
