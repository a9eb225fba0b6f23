#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <type_traits>
#include <vector>

#include "core/shared_library.h"
#include "vision/codecs.h"

namespace tessera::vision {
namespace {

/// Samples in OpenCV's order (grey, BGR or BGRA) to RGB. `out` may be where they are, if they are
/// BGR.
template <class Sample, int channels>
void to_rgb(const cv::Mat& mat, std::uint8_t* out) {
  const auto narrow = [](Sample sample) {
    if constexpr (sizeof(Sample) == 1) return sample;
    return static_cast<std::uint8_t>(channels == 1 ? std::min<int>(sample, 255) : sample >> 8);
  };
  for (int y = 0; y < mat.rows; ++y) {
    const Sample* in = mat.ptr<Sample>(y);
    for (int x = 0; x < mat.cols; ++x, in += channels, out += 3) {
      const Sample blue = in[0], green = in[channels == 1 ? 0 : 1], red = in[channels == 1 ? 0 : 2];
      out[0] = narrow(red);
      out[1] = narrow(green);
      out[2] = narrow(blue);
    }
  }
}

void to_rgb(const Encoded& file, const cv::Mat& mat, std::uint8_t* out) {
  switch (mat.type()) {
    case CV_8UC1:
      return to_rgb<std::uint8_t, 1>(mat, out);
    case CV_8UC3:
      return to_rgb<std::uint8_t, 3>(mat, out);
    case CV_8UC4:
      return to_rgb<std::uint8_t, 4>(mat, out);
    case CV_16UC1:
      return to_rgb<std::uint16_t, 1>(mat, out);
    case CV_16UC3:
      return to_rgb<std::uint16_t, 3>(mat, out);
    case CV_16UC4:
      return to_rgb<std::uint16_t, 4>(mat, out);
    default:
      file.unsupported("samples are neither of 8 nor of 16 bits");
  }
}

/// OpenCV's messages are off while it lives: what is wrong is thrown.
class Quiet {
 public:
  Quiet() : before_(cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT)) {}
  ~Quiet() { cv::utils::logging::setLogLevel(before_); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  cv::utils::logging::LogLevel before_;
};

/// cv::imdecode, from the library that brings the codecs. OpenCV's core is linked: it brings
/// little.
bool decode_into(const cv::Mat& bytes, cv::Mat& into) {
  using Decode = cv::Mat(cv::InputArray, int, cv::Mat*);
  static auto* const imdecode = SharedLibrary(TESSERA_OPENCV_IMGCODECS, "images of this format")
                                    .get<Decode>("_ZN2cv8imdecodeERKNS_11_InputArrayEiPNS_3MatE");
  static_assert(std::is_same_v<decltype(static_cast<Decode*>(&cv::imdecode)), Decode*>);
  return !imdecode(bytes, cv::IMREAD_UNCHANGED, &into).empty();
}

/// Decodes into `into` where the picture has that size and type, else into memory of its own.
cv::Mat decode(const Encoded& file, std::span<const std::uint8_t> bytes, cv::Mat into) {
  const std::int64_t width = into.cols, height = into.rows;
  const Quiet quiet;
  try {
    const cv::Mat view(1, static_cast<int>(bytes.size()), CV_8UC1,
                       const_cast<std::uint8_t*>(bytes.data()));
    if (!decode_into(view, into)) file.fail(0, "the codec refuses the image: corrupt data");
  } catch (const cv::Exception& error) {
    file.fail(0, "the codec refuses the image: ", error.err);
  }
  if (into.cols != width || into.rows != height)
    file.fail(0, "the header says ", width, " x ", height, " pixels, the codec found ", into.cols,
              " x ", into.rows);
  return into;
}

/// A matrix over memory for a picture; `pixels` gets the bytes for it.
cv::Mat matrix_over(const Encoded& file, std::vector<std::uint8_t>& pixels, std::int64_t width,
                    std::int64_t height, int type) {
  constexpr std::int64_t kSide =
      1 << 20;  // OpenCV's own limit (CV_IO_MAX_IMAGE_WIDTH), on which it throws
  if (width > kSide || height > kSide)
    file.unsupported("the image has ", width, " x ", height, " pixels; OpenCV decodes at most ",
                     kSide, " a side");
  pixels.resize(static_cast<std::size_t>(width * height * CV_MAT_CN(type)));
  return cv::Mat(static_cast<int>(height), static_cast<int>(width), type, pixels.data());
}

}  // namespace

Image decode_by_opencv(const Encoded& file, std::span<const std::uint8_t> bytes, std::int64_t width,
                       std::int64_t height) {
  Image image{width, height, {}};
  const cv::Mat mat = decode(file, bytes, matrix_over(file, image.pixels, width, height, CV_8UC3));
  to_rgb(file, mat, image.pixels.data());
  return image;
}

std::vector<std::uint8_t> decode_grey_by_opencv(const Encoded& file,
                                                std::span<const std::uint8_t> bytes,
                                                std::int64_t width, std::int64_t height) {
  std::vector<std::uint8_t> pixels;
  const cv::Mat mat = decode(file, bytes, matrix_over(file, pixels, width, height, CV_8UC1));
  if (mat.data != pixels.data()) file.fail(0, "the codec found other samples than 8-bit grey");
  return pixels;
}

std::uint8_t cmyk_to_rgb(int ink, int black) {
  const int white = 255 - black, product = ink * white + 128;
  return static_cast<std::uint8_t>(std::max(0, white - (((product >> 8) + product) >> 8)));
}

}  // namespace tessera::vision
