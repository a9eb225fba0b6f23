#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

/// Samples in OpenCV's order (grey, BGR or BGRA) to RGB.
template <class Sample, int channels>
void to_rgb(const cv::Mat& mat, std::uint8_t* out) {
  const auto narrow = [](Sample sample) {
    if constexpr (sizeof(Sample) == 1) return sample;
    return static_cast<std::uint8_t>(channels == 1 ? std::min<int>(sample, 255) : sample >> 8);
  };
  constexpr int red = channels == 1 ? 0 : 2, green = channels == 1 ? 0 : 1;
  for (int y = 0; y < mat.rows; ++y) {
    const Sample* in = mat.ptr<Sample>(y);
    for (int x = 0; x < mat.cols; ++x, in += channels, out += 3) {
      out[0] = narrow(in[red]);
      out[1] = narrow(in[green]);
      out[2] = narrow(in[0]);
    }
  }
}

}  // namespace

Image decode_by_opencv(const Encoded& file, std::span<const std::uint8_t> bytes, std::int64_t width,
                       std::int64_t height) {
  constexpr std::int64_t kSide =
      1 << 20;  // OpenCV's own limit (CV_IO_MAX_IMAGE_WIDTH), on which it throws
  if (width > kSide || height > kSide)
    file.unsupported("the image has ", width, " x ", height, " pixels; OpenCV decodes at most ",
                     kSide, " a side");
  cv::Mat mat;
  try {
    const cv::Mat view(1, static_cast<int>(bytes.size()), CV_8UC1,
                       const_cast<std::uint8_t*>(bytes.data()));
    mat = cv::imdecode(view, cv::IMREAD_UNCHANGED);
  } catch (const cv::Exception& error) {
    file.fail(0, "the codec refuses the image: ", error.err);
  }
  if (mat.empty()) file.fail(0, "the codec refuses the image: corrupt data");
  if (mat.cols != width || mat.rows != height)
    file.fail(0, "the header says ", width, " x ", height, " pixels, the codec found ", mat.cols,
              " x ", mat.rows);

  Image image{width, height, {}};
  image.pixels.resize(static_cast<std::size_t>(width * height * 3));
  std::uint8_t* out = image.pixels.data();
  switch (mat.type()) {
    case CV_8UC1:
      to_rgb<std::uint8_t, 1>(mat, out);
      break;
    case CV_8UC3:
      to_rgb<std::uint8_t, 3>(mat, out);
      break;
    case CV_8UC4:
      to_rgb<std::uint8_t, 4>(mat, out);
      break;
    case CV_16UC1:
      to_rgb<std::uint16_t, 1>(mat, out);
      break;
    case CV_16UC3:
      to_rgb<std::uint16_t, 3>(mat, out);
      break;
    case CV_16UC4:
      to_rgb<std::uint16_t, 4>(mat, out);
      break;
    default:
      file.unsupported("samples are neither of 8 nor of 16 bits");
  }
  return image;
}

std::uint8_t cmyk_to_rgb(int ink, int black) {
  const int white = 255 - black, product = ink * white + 128;
  return static_cast<std::uint8_t>(std::max(0, white - (((product >> 8) + product) >> 8)));
}

}  // namespace tessera::vision
