#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <vector>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

constexpr std::size_t kFileHeader = 14;
enum Compression : std::uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

/// Where a colour is in a pixel of 16, 24 or 32 bits.
struct Channel {
  int shift = 0;
  std::uint32_t most = 255;
  explicit Channel(std::uint32_t mask) : shift(std::countr_zero(mask)), most(mask >> shift) {}
};

struct Header {
  std::int64_t width = 0, height = 0;
  bool top_down = false;
  std::uint32_t bits = 0, compression = kRaw;
  std::size_t palette_at = 0, color_bytes = 4, colors = 0, data_at = 0;
  std::vector<Channel> channels;  // red, green, blue; empty for palettes
};

/// Masks of true-colour pixels; those of the file where it has some.
void read_channels(const Encoded& file, Header& header) {
  std::array<std::uint32_t, 3> masks{0xff0000, 0xff00, 0xff};
  if (header.bits == 16) masks = {0x7c00, 0x3e0, 0x1f};
  if (header.compression == kBitFields) {
    const std::array<std::uint32_t, 3> stored{file.little(kFileHeader + 40, 4),
                                              file.little(kFileHeader + 44, 4),
                                              file.little(kFileHeader + 48, 4)};
    if (header.bits != 32 || stored != std::array<std::uint32_t, 3>{}) masks = stored;
  }
  for (const std::uint32_t mask : masks) {
    const bool fits = mask != 0 && (header.bits == 32 || mask >> header.bits == 0);
    if (!fits || !std::has_single_bit((mask >> std::countr_zero(mask)) + 1))
      file.unsupported("colour masks ", masks[0], ", ", masks[1], ", ", masks[2]);
    header.channels.emplace_back(mask);
    if (header.channels.back().most > 255) file.unsupported("more than 8 bits a colour");
  }
}

Header read_header(const Encoded& file) {
  Header header;
  header.data_at = file.little(10, 4);
  const std::size_t size = file.little(kFileHeader, 4), at = kFileHeader;
  if (size == 12) {
    header.width = file.little(at + 4, 2);
    header.height = file.little(at + 6, 2);
    header.bits = file.little(at + 10, 2);
    header.color_bytes = 3;
  } else if (size == 40 || size == 52 || size == 56 || size == 64 || size == 108 || size == 124) {
    header.width = file.little(at + 4, 4);
    const std::int64_t height = static_cast<std::int32_t>(file.little(at + 8, 4));
    header.top_down = height < 0;
    header.height = std::abs(height);
    header.bits = file.little(at + 14, 2);
    header.compression = file.little(at + 16, 4);
    header.colors = file.little(at + 32, 4);
  } else {
    file.unsupported("a header of ", size, " bytes");
  }
  file.check_size(header.width, header.height);
  const bool matches = header.compression == kRaw ||
                       (header.compression == kRle8 && header.bits == 8) ||
                       (header.compression == kRle4 && header.bits == 4) ||
                       (header.compression == kBitFields && header.bits >= 16);
  if (!matches) file.unsupported("compression ", header.compression, " of ", header.bits, " bits");

  header.palette_at = at + size;
  if (header.bits == 1 || header.bits == 4 || header.bits == 8) {
    if (header.colors == 0) header.colors = std::size_t{1} << header.bits;
    if (header.colors > 65536) file.fail(at + 32, "a palette of ", header.colors, " colours");
    file.part(header.palette_at, header.colors * header.color_bytes);
  } else if (header.bits == 16 || header.bits == 24 || header.bits == 32) {
    read_channels(file, header);
  } else {
    file.unsupported(header.bits, " bits a pixel");
  }
  return header;
}

/// RGB of every index: black beyond the table's end, but greys where the table is a ramp of greys.
std::vector<std::uint8_t> read_palette(const Encoded& file, const Header& header) {
  std::vector<std::uint8_t> colors(256 * 3);
  bool ramp = header.bits == 8;
  for (std::size_t i = 0; i < std::min<std::size_t>(header.colors, 256); ++i)
    for (std::size_t c = 0; c < 3; ++c) {
      colors[i * 3 + c] =
          static_cast<std::uint8_t>(file.u8(header.palette_at + i * header.color_bytes + 2 - c));
      ramp = ramp && colors[i * 3 + c] == i;
    }
  if (ramp)
    for (std::size_t i = 0; i < colors.size(); ++i) colors[i] = static_cast<std::uint8_t>(i / 3);
  return colors;
}

/// Run-length coded pixels as one index a byte, rows in the order of the file.
std::vector<std::uint8_t> unpack_runs(const Encoded& file, const Header& header) {
  const bool nibbles = header.compression == kRle4;
  const std::size_t width = static_cast<std::size_t>(header.width),
                    count = width * static_cast<std::size_t>(header.height);
  std::vector<std::uint8_t> pixels(count);
  std::size_t at = header.data_at, done = 0, x = 0;
  const auto nibble = [](std::uint32_t byte, std::size_t i) {
    return static_cast<std::uint8_t>(i % 2 == 0 ? byte >> 4 : byte & 15);
  };
  while (done < count) {
    const std::size_t run = file.u8(at);
    const std::uint32_t value = file.u8(at + 1);
    at += 2;
    if (run > 0) {
      const std::size_t fits = x < width ? std::min({run, width - x, count - done}) : 0;
      for (std::size_t i = 0; i < fits; ++i)
        pixels[done++] = nibbles ? nibble(value, i) : static_cast<std::uint8_t>(value);
      x += fits;
    } else if (value == 0) {  // end of line
      done = (done + width - 1) / width * width;
      x = 0;
    } else if (value == 1) {  // end of picture
      break;
    } else if (value == 2) {  // move right and up
      done = std::min(count, done + file.u8(at) + file.u8(at + 1) * width);
      x = done % width;
      at += 2;
    } else {  // pixels one by one
      const std::size_t literal = std::min<std::size_t>(value, count - done);
      for (std::size_t i = 0; i < literal; ++i)
        pixels[done++] =
            nibbles ? nibble(file.u8(at + i / 2), i) : static_cast<std::uint8_t>(file.u8(at + i));
      x += value;
      at += nibbles ? (value + 1) / 2 : value;
      at += at % 2;
    }
  }
  if (done < count) file.fail(at, "the file is truncated: the data ends in row ", done / width);
  return pixels;
}

/// One row of pixels to RGB.
void unpack_row(const Header& header, std::span<const std::uint8_t> row,
                std::span<const std::uint8_t> palette, std::uint8_t* out) {
  const std::size_t bits = header.bits;
  for (std::size_t x = 0; x < static_cast<std::size_t>(header.width); ++x, out += 3) {
    if (bits <= 8) {
      const std::size_t first = x * bits;
      const std::uint32_t index = row[first / 8] >> (8 - bits - first % 8) & ((1u << bits) - 1);
      std::copy_n(palette.data() + index * 3, 3, out);
      continue;
    }
    std::uint32_t pixel = 0;
    for (std::size_t i = 0; i < bits / 8; ++i)
      pixel |= static_cast<std::uint32_t>(row[x * bits / 8 + i]) << 8 * i;
    for (std::size_t c = 0; c < 3; ++c) {
      const Channel& channel = header.channels[c];
      const std::uint32_t value = pixel >> channel.shift & channel.most;
      out[c] = static_cast<std::uint8_t>(channel.most == 255 ? value : value * 255 / channel.most);
    }
  }
}

}  // namespace

/// Own code, because OpenCV's reader widens 5 and 6 bits in another way than Pillow, ignores colour
/// masks and takes pictures whose data ends early.
Decoded decode_bmp(const Encoded& file) {
  Header header = read_header(file);
  std::vector<std::uint8_t> palette, indices;
  if (header.channels.empty()) palette = read_palette(file, header);

  const bool runs = header.compression == kRle8 || header.compression == kRle4;
  const std::size_t height = static_cast<std::size_t>(header.height),
                    width = static_cast<std::size_t>(header.width);
  std::size_t stride = (width * header.bits + 31) / 32 * 4;
  std::span<const std::uint8_t> data;
  if (runs) {
    indices = unpack_runs(file, header);
    data = indices;
    stride = width;
    header.bits = 8;
  } else {
    data = file.part(header.data_at, stride * height);
  }

  Image image{header.width, header.height, {}};
  image.pixels.resize(width * height * 3);
  for (std::size_t y = 0; y < height; ++y) {
    const std::size_t row = header.top_down ? y : height - 1 - y;
    unpack_row(header, data.subspan(row * stride, stride), palette,
               image.pixels.data() + y * width * 3);
  }
  return {std::move(image), 1};
}

}  // namespace tessera::vision
