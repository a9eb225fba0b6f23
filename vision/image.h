#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace tessera::vision {

/// 8-bit RGB, rows from the top, no padding: pixels[(y * width + x) * 3 + channel].
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};

struct ImageLimits {
  std::int64_t max_pixels =
      178'956'970;  ///< Pillow's decompression-bomb bound; checked before memory is taken
  std::int64_t max_file_bytes = 512ll << 20;
};

/// Whether a file is called like an image that load_image() reads (what it is shows in its bytes).
bool is_image_name(const std::filesystem::path& file);

/// Decodes JPEG, PNG, WebP, TIFF, BMP, GIF (first frame) as Pillow's Image.open(f).convert("RGB")
/// does, with the EXIF orientation applied. Throws IoError (can't read), FormatError (not an image,
/// truncated), UnsupportedError.
Image load_image(const std::filesystem::path& file, const ImageLimits& limits = {});
/// The same from memory; `name` stands for the file in messages.
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                   const ImageLimits& limits = {});

}  // namespace tessera::vision
