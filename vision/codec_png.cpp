#include <algorithm>
#include <array>
#include <vector>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

constexpr std::size_t kSignature = 8;  // bytes

enum ColorType : std::uint32_t { kGrey = 0, kRgb = 2, kPalette = 3, kGreyAlpha = 4, kRgba = 6 };

/// Checksum of chunks (ISO 3309).
std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  static constexpr auto kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
      table[i] = value;
    }
    return table;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (const std::uint8_t byte : bytes) crc = kTable[(crc ^ byte) & 255] ^ crc >> 8;
  return ~crc;
}

struct Header {
  std::int64_t width = 0, height = 0;
  std::uint32_t depth = 0, color = 0;
};

Header read_header(const Encoded& file, std::size_t at) {
  Header header{file.big(at, 4), file.big(at + 4, 4), file.u8(at + 8), file.u8(at + 9)};
  file.check_size(header.width, header.height);
  const auto depth_is = [&](std::initializer_list<std::uint32_t> allowed) {
    return std::find(allowed.begin(), allowed.end(), header.depth) != allowed.end();
  };
  const bool known = header.color == kGrey ? depth_is({1, 2, 4, 8, 16})
                     : header.color == kPalette
                         ? depth_is({1, 2, 4, 8})
                         : depth_is({8, 16}) && (header.color == kRgb || header.color == kRgba ||
                                                 header.color == kGreyAlpha);
  if (!known)
    file.fail(at + 8, "bad header: colour type ", header.color, " with ", header.depth, " bits");
  if (file.u8(at + 10) != 0 || file.u8(at + 11) != 0 || file.u8(at + 12) > 1)
    file.fail(at + 10, "bad header: unknown compression, filter or interlacing");
  return header;
}

/// Deflate shrinks at most 1032 to 1.
void check_data_size(const Encoded& file, const Header& header, std::int64_t compressed) {
  const std::int64_t channels = header.color == kRgb         ? 3
                                : header.color == kRgba      ? 4
                                : header.color == kGreyAlpha ? 2
                                                             : 1;
  const std::int64_t row = (header.width * channels * header.depth + 7) / 8;
  if (row * header.height / 1032 > compressed)
    file.fail(0, "the file is truncated: ", compressed, " bytes of compressed data can't hold ",
              header.width, " x ", header.height, " pixels");
}

/// The picture alone: header, palette and data. Everything else (profiles, gamma, transparency,
/// text, animation) would not change the colours Pillow gives, but does make codecs differ and
/// warn.
class Extract {
 public:
  explicit Extract(const Encoded& file) : file_(file) {
    const auto signature = file.part(0, kSignature);
    png_.reserve(file.size() + 1024);
    png_.assign(signature.begin(), signature.end());
  }

  /// Takes the whole chunk that begins at `at`.
  void chunk(std::size_t at, std::size_t length) {
    check(at, length);
    const auto bytes = file_.part(at, length + 12);
    png_.insert(png_.end(), bytes.begin(), bytes.end());
  }

  /// Takes the palette, filled up with black to all colours that pixels can name.
  void palette(std::size_t at, std::size_t length, std::uint32_t depth) {
    check(at, length);
    if (length % 3 != 0 || length > 768) file_.fail(at, "a palette of ", length, " bytes");
    const auto colors = file_.part(at + 8, length);
    const std::size_t full = std::size_t{3} << depth;
    std::vector<std::uint8_t> body = {'P', 'L', 'T', 'E'};
    body.insert(body.end(), colors.begin(),
                colors.begin() + static_cast<std::ptrdiff_t>(std::min(length, full)));
    body.resize(4 + full);
    big_endian(static_cast<std::uint32_t>(full));
    png_.insert(png_.end(), body.begin(), body.end());
    big_endian(crc32(body));
  }

  std::string_view name(std::size_t at) const {
    return {reinterpret_cast<const char*>(file_.part(at + 4, 4).data()), 4};
  }
  std::span<const std::uint8_t> bytes() const { return png_; }

 private:
  void check(std::size_t at, std::size_t length) const {
    if (file_.big(at + 8 + length, 4) != crc32(file_.part(at + 4, length + 4)))
      file_.fail(at, "corrupt: the checksum of chunk ", name(at), " is wrong");
  }
  void big_endian(std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8)
      png_.push_back(static_cast<std::uint8_t>(value >> shift));
  }

  const Encoded& file_;
  std::vector<std::uint8_t> png_;
};

/// The packet of an uncompressed iTXt chunk with XMP; empty for every other text.
std::span<const std::uint8_t> xmp_text(const Encoded& file, std::size_t at, std::size_t length) {
  constexpr std::string_view kKey("XML:com.adobe.xmp\0\0", 19);  // keyword, then "not compressed"
  return length > kKey.size() && file.has(at, kKey)
             ? file.part(at + kKey.size(), length - kKey.size())
             : std::span<const std::uint8_t>{};
}

}  // namespace

Decoded decode_png(const Encoded& file) {
  if (!file.has(kSignature + 4, "IHDR") || file.big(kSignature, 4) != 13)
    file.fail(kSignature, "the first chunk is not a PNG header");
  const Header header = read_header(file, kSignature + 8);
  Extract picture(file);
  std::span<const std::uint8_t> exif, xmp;
  std::int64_t data_bytes = 0;
  bool has_palette = false, data_ended = false;

  for (std::size_t at = kSignature;;) {
    const std::size_t length = file.big(at, 4);
    file.part(at + 8, length);
    file.part(at + 8 + length, 4);
    const std::string_view name = picture.name(at);
    if (at == kSignature || name == "IEND") {
      picture.chunk(at, length);
    } else if (name == "PLTE" && header.color == kPalette && !has_palette) {
      picture.palette(at, length, header.depth);
      has_palette = true;
    } else if (name == "IDAT" && !data_ended) {
      picture.chunk(at, length);
      data_bytes += static_cast<std::int64_t>(length);
    } else if (name == "eXIf") {
      exif = file.part(at + 8, length);
    } else if (name == "iTXt" && xmp.empty()) {
      xmp = xmp_text(file, at + 8, length);
    }
    data_ended = data_bytes > 0 && name != "IDAT";
    if (name == "IEND") break;
    at += 12 + length;
  }
  if (data_bytes == 0) file.fail(file.size(), "no picture data");
  if (header.color == kPalette && !has_palette) file.fail(0, "a palette picture without palette");
  check_data_size(file, header, data_bytes);
  return {decode_by_opencv(file, picture.bytes(), header.width, header.height),
          orientation_of(exif, xmp)};
}

}  // namespace tessera::vision
