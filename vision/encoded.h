#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"
#include "vision/image.h"

namespace tessera::vision {

/// The bytes of an image file, read with bounds checks. Whatever is wrong is thrown with the file's
/// name, the format and the byte.
class Encoded {
 public:
  Encoded(std::span<const std::uint8_t> bytes, std::string_view name, std::string_view format,
          const ImageLimits& limits)
      : bytes_(bytes), where_(concat(name, ": ", format)), limits_(limits) {}

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::uint8_t> bytes() const { return bytes_; }
  /// Bytes [at, at + length); FormatError where the file ends before.
  std::span<const std::uint8_t> part(std::size_t at, std::size_t length) const {
    if (at > size() || length > size() - at)
      fail(at, "the file is truncated: expected ", length, " bytes, found ",
           size() - std::min(at, size()));
    return bytes_.subspan(at, length);
  }
  bool has(std::size_t at, std::string_view text) const {
    if (at > size() || text.size() > size() - at) return false;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (bytes_[at + i] != static_cast<std::uint8_t>(text[i])) return false;
    return true;
  }

  /// Unsigned numbers of 1 to 4 bytes.
  std::uint32_t big(std::size_t at, std::size_t length) const {
    std::uint32_t value = 0;
    for (const std::uint8_t byte : part(at, length)) value = value << 8 | byte;
    return value;
  }
  std::uint32_t little(std::size_t at, std::size_t length) const {
    std::uint32_t value = 0;
    int shift = 0;
    for (const std::uint8_t byte : part(at, length)) {
      value |= static_cast<std::uint32_t>(byte) << shift;
      shift += 8;
    }
    return value;
  }
  std::uint32_t u8(std::size_t at) const { return part(at, 1)[0]; }

  /// Throws where an image of this size is empty or more than the limits allow.
  void check_size(std::int64_t width, std::int64_t height) const {
    if (width <= 0 || height <= 0) fail(0, "the image is empty: ", width, " x ", height, " pixels");
    if (width > limits_.max_pixels / height)
      unsupported("the image has ", width, " x ", height, " pixels; the limit is ",
                  limits_.max_pixels, " (ImageLimits::max_pixels)");
  }

  template <class... Args>
  [[noreturn]] void fail(std::size_t at, const Args&... what) const {
    throw FormatError(concat(where_, ": byte ", at, ": ", what...));
  }
  template <class... Args>
  [[noreturn]] void unsupported(const Args&... what) const {
    throw UnsupportedError(concat(where_, ": ", what...));
  }

 private:
  std::span<const std::uint8_t> bytes_;
  std::string where_;
  ImageLimits limits_;
};

}  // namespace tessera::vision
