#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <vector>

#include "vision/image.h"

namespace tessera::vision {

/// tests/data/images: files.json names the pictures in it, resize.json, processors.json and
/// real.json hold results.
inline std::filesystem::path data_folder() { return TESSERA_SOURCE_DIR "/tests/data/images"; }

inline std::vector<std::uint8_t> read_bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The test picture of tests/golden/make_images.py.
inline Image pattern(std::int64_t width, std::int64_t height) {
  Image image{width, height, {}};
  for (std::uint32_t y = 0; y < height; ++y)
    for (std::uint32_t x = 0; x < width; ++x)
      for (std::uint32_t c = 0; c < 3; ++c) {
        const std::uint32_t noise = (x * 73856093u ^ y * 19349663u ^ c * 83492791u) * 2654435761u;
        image.pixels.push_back(
            static_cast<std::uint8_t>(x * (3 + c) + y * (7 - c) + (noise >> 16) % 64));
      }
  return image;
}

inline std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  std::uint32_t crc = ~0u;
  for (const std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
  }
  return ~crc;
}

}  // namespace tessera::vision
