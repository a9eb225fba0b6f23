#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "vision/image.h"
#include "vision/image_processor.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t crc32(const std::uint8_t* bytes, std::size_t count) {
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < count; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
  }
  return ~crc;
}

/// The same bytes with right checksums where they look like a PNG file, or else no change would
/// ever come past them.
Bytes with_checksums(Bytes bytes) {
  if (bytes.size() < 8 || bytes[1] != 'P' || bytes[2] != 'N' || bytes[3] != 'G') return bytes;
  for (std::size_t at = 8; bytes.size() - at >= 12;) {
    const std::size_t length = std::size_t{bytes[at]} << 24 | std::size_t{bytes[at + 1]} << 16 |
                               std::size_t{bytes[at + 2]} << 8 | bytes[at + 3];
    if (length > bytes.size() - at - 12) break;
    const std::uint32_t crc = crc32(bytes.data() + at + 4, length + 4);
    for (std::size_t i = 0; i < 4; ++i)
      bytes[at + 8 + length + i] = static_cast<std::uint8_t>(crc >> (24 - 8 * i));
    at += 12 + length;
  }
  return bytes;
}

}  // namespace

// Any bytes: a picture or an Error, soon and within bounds; and the picture can be preprocessed.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera;
  vision::ImageLimits limits;
  limits.max_pixels = 1 << 18;
  const Bytes bytes = with_checksums({data, data + size});
  try {
    const vision::Image image = vision::decode_image(bytes, "fuzz", limits);
    if (image.width < 1 || image.height < 1 || image.width > limits.max_pixels / image.height ||
        static_cast<std::int64_t>(image.pixels.size()) != image.width * image.height * 3)
      __builtin_trap();
    const std::string filter = std::to_string(size % 6);
    const vision::ImageProcessor processor(Config::parse(
        R"({"image_processor_type": "CLIPImageProcessor", "size": 9, "crop_size": 8, "resample": )" +
            filter + "}",
        "fuzz"));
    if (processor(image).shape() != Shape({3, 8, 8})) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
