// Pillow's resampling: two passes, one along the columns, one along the rows, each with 22-bit
// fixed-point weights and rounded to 8 bits. The weights are computed as Pillow does, operation by
// operation, so that all bits agree
// (-ffp-contract=off in CMakeLists.txt keeps compilers from fusing operations).
#include "vision/resize.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/error.h"

namespace tessera::vision {
namespace {

constexpr int kPrecision = 22;  // bits of a weight after the point
constexpr std::int64_t kChannels = 3;

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }
double bilinear(double x) { return std::abs(x) < 1.0 ? 1.0 - std::abs(x) : 0.0; }
double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= std::numbers::pi;
  return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));  // Pillow's constants are floats
}
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}
double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Filter {
  double (*weight)(double);
  double support;
};

Filter filter_of(Resample resample) {
  switch (resample) {
    case Resample::box:
      return {box, 0.5};
    case Resample::bilinear:
      return {bilinear, 1.0};
    case Resample::hamming:
      return {hamming, 1.0};
    case Resample::bicubic:
      return {bicubic, 2.0};
    case Resample::lanczos:
      return {lanczos, 3.0};
    case Resample::nearest:
      break;
  }
  throw ArgumentError(concat("resize: no filter has number ", static_cast<int>(resample)));
}

/// A range of rows or columns.
struct Range {
  std::int64_t begin, count;
};

/// Which samples make each result of a range along one axis, and with what
/// weights.
struct Axis {
  struct Taps {
    std::int64_t first, count;  // samples
    std::size_t weights;        // where theirs begin
  };
  std::vector<Taps> taps;
  std::vector<std::int32_t> weights;
};

Axis make_axis(std::int64_t in, std::int64_t out, const Filter& filter, const Range& range) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double filter_scale = std::max(scale, 1.0), inverse = 1.0 / filter_scale;
  const double support = filter.support * filter_scale;
  Axis axis;
  std::vector<double> weights;
  for (std::int64_t i = range.begin; i < range.begin + range.count; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const std::int64_t first =
        std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
    const std::int64_t last = std::min(in, static_cast<std::int64_t>(center + support + 0.5));
    weights.clear();
    double sum = 0.0;
    for (std::int64_t x = first; x < last; ++x) {
      weights.push_back(filter.weight((static_cast<double>(x) - center + 0.5) * inverse));
      sum += weights.back();
    }
    axis.taps.push_back({first, last - first, axis.weights.size()});
    for (double weight : weights) {
      if (sum != 0.0) weight /= sum;
      axis.weights.push_back(
          static_cast<std::int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kPrecision)));
    }
  }
  return axis;
}

std::uint8_t to_byte(std::int32_t fixed) {
  return static_cast<std::uint8_t>(std::clamp(fixed >> kPrecision, 0, 255));
}

constexpr std::int32_t kHalf = 1 << (kPrecision - 1);

/// An image that is a part of another one, from its pixel (left, top) on, in the coordinates of
/// that other one.
class View {
 public:
  View(const Image& image, std::int64_t left, std::int64_t top)
      : image_(image), left_(left), top_(top) {}
  const std::uint8_t* at(std::int64_t column, std::int64_t row) const {
    return image_.pixels.data() + ((row - top_) * image_.width + column - left_) * kChannels;
  }

 private:
  const Image& image_;
  std::int64_t left_, top_;
};

/// The samples that an axis takes.
Range samples_of(const Axis& axis) {
  const Axis::Taps &first = axis.taps.front(), &last = axis.taps.back();
  return {first.first, last.first + last.count - first.first};
}

/// The rows of this range, resampled along the columns.
Image resample_columns(const View& in, const Axis& axis, const Range& rows) {
  Image out{static_cast<std::int64_t>(axis.taps.size()), rows.count, {}};
  out.pixels.resize(static_cast<std::size_t>(out.width * rows.count * kChannels));
  std::uint8_t* to = out.pixels.data();
  for (std::int64_t y = rows.begin; y < rows.begin + rows.count; ++y) {
    for (const Axis::Taps& taps : axis.taps) {
      const std::int32_t* weight = axis.weights.data() + taps.weights;
      const std::uint8_t* from = in.at(taps.first, y);
      std::int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (std::int64_t i = 0; i < taps.count; ++i, from += kChannels) {
        red += from[0] * weight[i];
        green += from[1] * weight[i];
        blue += from[2] * weight[i];
      }
      *to++ = to_byte(red);
      *to++ = to_byte(green);
      *to++ = to_byte(blue);
    }
  }
  return out;
}

/// The columns of this range, resampled along the rows.
Image resample_rows(const View& in, const Axis& axis, const Range& columns) {
  Image out{columns.count, static_cast<std::int64_t>(axis.taps.size()), {}};
  const std::size_t row_size = static_cast<std::size_t>(columns.count * kChannels);
  out.pixels.resize(row_size * axis.taps.size());
  std::vector<std::int32_t> sums(row_size);
  std::uint8_t* to = out.pixels.data();
  for (const Axis::Taps& taps : axis.taps) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (std::int64_t i = 0; i < taps.count; ++i) {
      const std::int32_t weight = axis.weights[taps.weights + static_cast<std::size_t>(i)];
      const std::uint8_t* from = in.at(columns.begin, taps.first + i);
      for (std::size_t x = 0; x < row_size; ++x) sums[x] += from[x] * weight;
    }
    for (const std::int32_t sum : sums) *to++ = to_byte(sum);
  }
  return out;
}

/// The part of the picture within the window, which must lie in it.
Image cut(const Image& image, const Window& window) {
  Image out{window.width, window.height, {}};
  out.pixels.resize(static_cast<std::size_t>(window.width * window.height * kChannels));
  for (std::int64_t y = 0; y < window.height; ++y)
    std::copy_n(image.pixels.data() + ((window.top + y) * image.width + window.left) * kChannels,
                window.width * kChannels, out.pixels.data() + y * window.width * kChannels);
  return out;
}

Image resample(const Image& image, std::int64_t width, std::int64_t height, const Filter& filter,
               const Window& window) {
  const View whole(image, 0, 0);
  const Range out_columns{window.left, window.width}, out_rows{window.top, window.height};
  if (width == image.width && height == image.height) return cut(image, window);
  const Axis columns = make_axis(image.width, width, filter, out_columns);
  if (height == image.height) return resample_columns(whole, columns, out_rows);
  const Axis rows = make_axis(image.height, height, filter, out_rows);
  if (width == image.width) return resample_rows(whole, rows, out_columns);

  // Since version 13 Pillow goes over the rows first where that loses far more of them than there
  // are columns to lose.
  const bool rows_first =
      height < image.height && image.height - height > 2 * (image.width - width);
  if (rows_first) {
    const Range needed = samples_of(columns);
    const Image fewer = resample_rows(whole, rows, needed);
    return resample_columns(View(fewer, needed.begin, window.top), columns, out_rows);
  }
  const Range needed = samples_of(rows);
  const Image narrower = resample_columns(whole, columns, needed);
  return resample_rows(View(narrower, window.left, needed.begin), rows, out_columns);
}

/// For each result the sample it takes; -1 where rounding leads out of the picture and it stays
/// black. The position is summed up step by step, as Pillow does.
std::vector<std::int64_t> nearest_samples(std::int64_t in, std::int64_t out, std::int64_t begin,
                                          std::int64_t count) {
  const double step = static_cast<double>(in) / static_cast<double>(out);
  std::vector<std::int64_t> samples;
  double position = step * 0.5;
  for (std::int64_t i = 0; i < begin + count; ++i, position += step) {
    const std::int64_t sample = static_cast<std::int64_t>(position);
    if (i >= begin) samples.push_back(sample < in ? sample : -1);
  }
  return samples;
}

Image take_nearest(const Image& image, std::int64_t width, std::int64_t height,
                   const Window& window) {
  const auto columns = nearest_samples(image.width, width, window.left, window.width);
  const auto rows = nearest_samples(image.height, height, window.top, window.height);
  Image out{window.width, window.height, {}};
  out.pixels.resize(columns.size() * rows.size() * kChannels);
  std::uint8_t* to = out.pixels.data();
  for (const std::int64_t row : rows)
    for (const std::int64_t column : columns) {
      if (row >= 0 && column >= 0)
        std::copy_n(image.pixels.data() + (row * image.width + column) * kChannels, kChannels, to);
      to += kChannels;
    }
  return out;
}

}  // namespace

Image resize_window(const Image& image, std::int64_t width, std::int64_t height, Resample filter,
                    const Window& window) {
  const std::int64_t left = std::max<std::int64_t>(window.left, 0),
                     top = std::max<std::int64_t>(window.top, 0);
  const Window inside{left, top, std::min(window.left + window.width, width) - left,
                      std::min(window.top + window.height, height) - top};
  if (image.width <= 0 || image.height <= 0 || inside.width <= 0 || inside.height <= 0)
    throw ShapeError(concat("resize: from ", image.width, " x ", image.height, " to ", width, " x ",
                            height, " pixels: one of them is empty"));
  const Image part = filter == Resample::nearest
                         ? take_nearest(image, width, height, inside)
                         : resample(image, width, height, filter_of(filter), inside);
  if (inside.width == window.width && inside.height == window.height) return part;
  Image out{window.width, window.height, {}};
  out.pixels.resize(static_cast<std::size_t>(window.width * window.height * kChannels));
  for (std::int64_t y = 0; y < part.height; ++y)
    std::copy_n(
        part.pixels.data() + y * part.width * kChannels, part.width * kChannels,
        out.pixels.data() + ((top - window.top + y) * out.width + left - window.left) * kChannels);
  return out;
}

Image resize(const Image& image, std::int64_t width, std::int64_t height, Resample filter) {
  return resize_window(image, width, height, filter, {0, 0, width, height});
}

}  // namespace tessera::vision
