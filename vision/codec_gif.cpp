#include <algorithm>
#include <memory>
#include <vector>

#include "vision/codecs.h"

#define STBI_NO_STDIO
#define STBI_ONLY_GIF
#define STBI_NO_FAILURE_STRINGS
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

namespace tessera::vision {
namespace {

constexpr std::size_t kColors = 256;

struct Screen {
  std::int64_t width = 0, height = 0;
};

/// A table of colours in the file; none: length 0.
struct ColorTable {
  std::size_t at = 0, length = 0;
};

struct Frame {
  std::int64_t x = 0, y = 0, width = 0, height = 0;
  bool interlaced = false;
  ColorTable colors;
  int transparent = -1;
  std::span<const std::uint8_t> data;  // code size and data blocks with their terminator
};

ColorTable color_table(const Encoded& file, std::size_t at, std::uint32_t flags) {
  if ((flags & 0x80) == 0) return {at, 0};
  const ColorTable table{at, std::size_t{3} << ((flags & 7) + 1)};
  file.part(table.at, table.length);
  return table;
}

/// The byte after the blocks that begin at `at`.
std::size_t skip_blocks(const Encoded& file, std::size_t at) {
  for (;;) {
    const std::size_t length = file.u8(at);
    file.part(at + 1, length);
    at += 1 + length;
    if (length == 0) return at;
  }
}

Frame read_frame(const Encoded& file, std::size_t at, const ColorTable& global) {
  Frame frame;
  frame.x = file.little(at + 1, 2);
  frame.y = file.little(at + 3, 2);
  frame.width = file.little(at + 5, 2);
  frame.height = file.little(at + 7, 2);
  file.check_size(frame.width, frame.height);
  const std::uint32_t flags = file.u8(at + 9);
  frame.interlaced = flags & 0x40;
  const ColorTable local = color_table(file, at + 10, flags);
  frame.colors = local.length > 0 ? local : global;
  const std::size_t data = local.at + local.length;
  frame.data = file.part(data, skip_blocks(file, data + 1) - data);
  // A code of 12 bits stands for 4095 pixels at most.
  if (frame.width * frame.height / 2731 > static_cast<std::int64_t>(frame.data.size()))
    file.fail(data, "the file is truncated: ", frame.data.size(), " bytes can't hold ", frame.width,
              " x ", frame.height, " pixels");
  return frame;
}

Frame first_frame(const Encoded& file, std::size_t at, const ColorTable& global) {
  constexpr std::uint32_t kExtension = '!', kImage = ',', kGraphicControl = 0xf9;
  int transparent = -1;
  for (;;) {
    const std::uint32_t kind = file.u8(at);
    if (kind == kImage) {
      Frame frame = read_frame(file, at, global);
      frame.transparent = transparent;
      return frame;
    }
    if (kind != kExtension) file.fail(at, "no picture");
    if (file.u8(at + 1) == kGraphicControl && file.u8(at + 2) >= 4)
      transparent = file.u8(at + 3) & 1 ? static_cast<int>(file.u8(at + 6)) : -1;
    at = skip_blocks(file, at + 2);
  }
}

/// A GIF file of this frame alone, whose colour number i is the grey (i, i, i): what it decodes to
/// are colour numbers.
std::vector<std::uint8_t> index_file(const Frame& frame) {
  std::vector<std::uint8_t> out;
  const auto text = [&out](std::string_view bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  const auto size = [&out, &frame] {
    for (const std::int64_t side : {frame.width, frame.height}) {
      out.push_back(static_cast<std::uint8_t>(side));
      out.push_back(static_cast<std::uint8_t>(side >> 8));
    }
  };
  text("GIF89a");
  size();
  text(std::string_view("\xf7\0\0", 3));  // 256 global colours
  for (std::size_t i = 0; i < kColors; ++i) out.insert(out.end(), 3, static_cast<std::uint8_t>(i));
  text(std::string_view(",\0\0\0\0", 5));
  size();
  out.push_back(frame.interlaced ? 0x40 : 0);
  out.insert(out.end(), frame.data.begin(), frame.data.end());
  text(";");
  return out;
}

/// The colours as Pillow has them: black beyond the table's end, but greys where there is no table
/// or only greys.
std::vector<std::uint8_t> palette(const Encoded& file, const ColorTable& table) {
  std::vector<std::uint8_t> greys(kColors * 3);
  for (std::size_t i = 0; i < greys.size(); ++i) greys[i] = static_cast<std::uint8_t>(i / 3);
  const auto stored = file.part(table.at, table.length);
  if (std::equal(stored.begin(), stored.end(), greys.begin())) return greys;
  std::vector<std::uint8_t> colors(kColors * 3);
  std::copy(stored.begin(), stored.end(), colors.begin());
  return colors;
}

}  // namespace

Decoded decode_gif(const Encoded& file) {
  constexpr std::size_t kScreenHeader = 13;
  const ColorTable global = color_table(file, kScreenHeader, file.u8(10));
  const Frame frame = first_frame(file, global.at + global.length, global);
  const Screen screen{std::max<std::int64_t>(file.little(6, 2), frame.x + frame.width),
                      std::max<std::int64_t>(file.little(8, 2), frame.y + frame.height)};
  file.check_size(screen.width, screen.height);

  const std::vector<std::uint8_t> gif = index_file(frame);
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> rgba(
      stbi_load_from_memory(gif.data(), static_cast<int>(gif.size()), &width, &height, &channels,
                            4),
      stbi_image_free);
  if (!rgba || width != frame.width || height != frame.height) file.fail(0, "corrupt picture data");

  const std::vector<std::uint8_t> colors = palette(file, frame.colors);
  Image image{screen.width, screen.height, {}};
  image.pixels.resize(static_cast<std::size_t>(screen.width * screen.height * 3));
  const std::size_t around =
      frame.transparent < 0 ? 0 : static_cast<std::size_t>(frame.transparent);
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = colors[around * 3 + i % 3];
  const stbi_uc* pixel = rgba.get();
  for (std::int64_t y = 0; y < frame.height; ++y) {
    std::uint8_t* out = image.pixels.data() + ((frame.y + y) * screen.width + frame.x) * 3;
    for (std::int64_t x = 0; x < frame.width; ++x, pixel += 4, out += 3) {
      if (pixel[3] == 0) file.fail(0, "the file is truncated: the data ends in row ", y);
      std::copy_n(colors.data() + pixel[0] * 3, 3, out);
    }
  }
  return {std::move(image), 1};
}

}  // namespace tessera::vision
