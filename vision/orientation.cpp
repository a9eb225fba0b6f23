#include <algorithm>
#include <string_view>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

constexpr std::uint32_t kOrientationTag = 0x0112;

int valid_or_upright(std::uint32_t value) {
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

/// 0 where the block has none.
int exif_orientation(std::span<const std::uint8_t> exif) {
  const ImageLimits limits;
  try {
    Encoded block(exif, "", "EXIF", limits);
    while (block.has(0, std::string_view("Exif\0\0", 6)))
      block = Encoded(block.bytes().subspan(6), "", "EXIF", limits);
    const bool big = block.has(0, "MM");
    if (!big && !block.has(0, "II")) return 0;
    const auto number = [&](std::size_t at, std::size_t length) {
      return big ? block.big(at, length) : block.little(at, length);
    };
    const std::size_t directory = number(4, 4), entries = number(directory, 2);
    for (std::size_t i = 0; i < entries; ++i) {
      const std::size_t entry = directory + 2 + i * 12;
      if (number(entry, 2) != kOrientationTag) continue;
      const std::uint32_t type = number(entry + 2, 2), count = number(entry + 4, 4);
      if (count != 1) return 1;
      if (type == 3)
        return valid_or_upright(number(entry + 8, 2));  // SHORT, as the standard has it
      if (type == 4) return valid_or_upright(number(entry + 8, 4));  // LONG
      if (type == 1) return valid_or_upright(number(entry + 8, 1));  // BYTE
      return 1;
    }
  } catch (const FormatError&) {  // metadata may be broken; the picture is not
  }
  return 0;
}

int xmp_orientation(std::span<const std::uint8_t> xmp) {
  const std::string_view text(reinterpret_cast<const char*>(xmp.data()), xmp.size());
  constexpr std::string_view kKey = "tiff:Orientation";
  for (std::size_t at = text.find(kKey); at != text.npos; at = text.find(kKey, at + 1)) {
    std::string_view rest = text.substr(at + kKey.size());
    if (rest.starts_with("=\""))
      rest.remove_prefix(2);
    else if (rest.starts_with(">"))
      rest.remove_prefix(1);
    else
      continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9')
      return valid_or_upright(static_cast<std::uint32_t>(rest[0] - '0'));
  }
  return 1;
}

}  // namespace

int orientation_of(std::span<const std::uint8_t> exif, std::span<const std::uint8_t> xmp) {
  const int orientation = exif_orientation(exif);
  return orientation != 0 ? orientation : xmp_orientation(xmp);
}

Image upright(Image image, int orientation) {
  if (orientation < 2 || orientation > 8) return image;
  const std::int64_t w = image.width, h = image.height;
  const std::int64_t last_column = w - 1, last_row = (h - 1) * w;
  // Pixel (x, y) of the result is pixel start + x * right + y * down of the stored picture.
  struct Walk {
    std::int64_t start, right, down;
  };
  const Walk walks[] = {
      {last_column, -1, w},              // 2: mirrored left to right
      {last_row + last_column, -1, -w},  // 3: upside down
      {last_row, 1, -w},                 // 4: mirrored top to bottom
      {0, w, 1},                         // 5: mirrored along the main diagonal
      {last_row, -w, 1},                 // 6: to be turned clockwise
      {last_row + last_column, -w, -1},  // 7: mirrored along the other diagonal
      {last_column, w, -1},              // 8: to be turned counter-clockwise
  };
  const Walk walk = walks[orientation - 2];
  Image out;
  out.width = orientation >= 5 ? h : w;
  out.height = orientation >= 5 ? w : h;
  out.pixels.resize(image.pixels.size());
  std::uint8_t* to = out.pixels.data();
  for (std::int64_t y = 0; y < out.height; ++y)
    for (std::int64_t x = 0; x < out.width; ++x, to += 3) {
      const std::uint8_t* from =
          image.pixels.data() + (walk.start + x * walk.right + y * walk.down) * 3;
      std::copy_n(from, 3, to);
    }
  return out;
}

}  // namespace tessera::vision
