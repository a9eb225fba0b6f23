#include <algorithm>
#include <array>
#include <vector>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

constexpr std::size_t kSignature = 8;  // bytes

enum ColorType : std::uint32_t { kGrey = 0, kRgb = 2, kPalette = 3, kGreyAlpha = 4, kRgba = 6 };

/// Checksum of chunks (ISO 3309), four bytes at a time.
std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  static constexpr auto kTables = [] {
    std::array<std::array<std::uint32_t, 256>, 4> tables{};  // [zero bytes that follow][byte]
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
      tables[0][i] = value;
    }
    for (std::size_t k = 1; k < 4; ++k)
      for (std::size_t i = 0; i < 256; ++i)
        tables[k][i] = tables[0][tables[k - 1][i] & 255] ^ tables[k - 1][i] >> 8;
    return tables;
  }();
  std::uint32_t crc = 0xffffffffu;
  std::size_t i = 0;
  for (; i + 4 <= bytes.size(); i += 4)
    crc = kTables[3][(crc ^ bytes[i]) & 255] ^ kTables[2][(crc >> 8 ^ bytes[i + 1]) & 255] ^
          kTables[1][(crc >> 16 ^ bytes[i + 2]) & 255] ^ kTables[0][crc >> 24 ^ bytes[i + 3]];
  for (; i < bytes.size(); ++i) crc = kTables[0][(crc ^ bytes[i]) & 255] ^ crc >> 8;
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

/// The packet of an uncompressed iTXt chunk with XMP; empty for every other text.
std::span<const std::uint8_t> xmp_text(const Encoded& file, std::size_t at, std::size_t length) {
  constexpr std::string_view kKey("XML:com.adobe.xmp\0\0", 19);  // keyword, then "not compressed"
  return length > kKey.size() && file.has(at, kKey)
             ? file.part(at + kKey.size(), length - kKey.size())
             : std::span<const std::uint8_t>{};
}

/// Collects the picture alone: header, palette and data. Everything else (profiles, gamma,
/// transparency, text, animation) would not change the colours Pillow gives, but does make codecs
/// differ and warn.
class Picture {
 public:
  explicit Picture(const Encoded& file) : file_(file), header_(read_header(file, kSignature + 8)) {
    const auto signature = file.part(0, kSignature);
    png_.reserve(file.size() + 1024);
    png_.assign(signature.begin(), signature.end());
    std::size_t at = kSignature;
    while (take_chunk(at, file.big(at, 4))) at += 12 + std::size_t{file.big(at, 4)};
    if (data_bytes_ == 0) file.fail(at, "no picture data");
    if (header_.color == kPalette && !has_palette_)
      file.fail(at, "a palette picture without palette");
    check_data_size(file, header_, data_bytes_);
  }

  Decoded decode() const {
    return {decode_by_opencv(file_, png_, header_.width, header_.height),
            orientation_of(exif_, xmp_)};
  }

 private:
  /// False at the end of the file.
  bool take_chunk(std::size_t at, std::size_t length) {
    const auto chunk = file_.part(at, 12 + length), content = chunk.subspan(8, length);
    const std::string_view name(reinterpret_cast<const char*>(chunk.data()) + 4, 4);
    if (file_.big(at + 8 + length, 4) != crc32(chunk.subspan(4, 4 + length)))
      file_.fail(at, "corrupt: the checksum of a chunk is wrong");
    if (at == kSignature || name == "IEND") {
      append(chunk);
    } else if (name == "PLTE" && header_.color == kPalette && data_bytes_ == 0 && !has_palette_) {
      take_palette(at, content);
    } else if (name == "IDAT" && !data_ended_) {
      append(chunk);
      data_bytes_ += static_cast<std::int64_t>(length);
    } else if (name == "eXIf") {
      exif_ = content;
    } else if (name == "iTXt" && xmp_.empty()) {
      xmp_ = xmp_text(file_, at + 8, length);
    }
    data_ended_ = data_bytes_ > 0 && name != "IDAT";
    return name != "IEND";
  }

  /// Takes the palette, filled up with black to all colours that pixels can name.
  void take_palette(std::size_t at, std::span<const std::uint8_t> colors) {
    if (colors.size() % 3 != 0 || colors.size() > 768)
      file_.fail(at, "a palette of ", colors.size(), " bytes");
    const std::size_t full = std::size_t{3} << header_.depth;
    std::vector<std::uint8_t> body = {'P', 'L', 'T', 'E'};
    body.insert(body.end(), colors.begin(),
                colors.begin() + static_cast<std::ptrdiff_t>(std::min(colors.size(), full)));
    body.resize(4 + full);
    append_number(static_cast<std::uint32_t>(full));
    append(body);
    append_number(crc32(body));
    has_palette_ = true;
  }

  void append(std::span<const std::uint8_t> bytes) {
    png_.insert(png_.end(), bytes.begin(), bytes.end());
  }
  void append_number(std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8)
      png_.push_back(static_cast<std::uint8_t>(value >> shift));
  }

  const Encoded& file_;
  Header header_;
  std::vector<std::uint8_t> png_;
  std::span<const std::uint8_t> exif_, xmp_;
  std::int64_t data_bytes_ = 0;
  bool has_palette_ = false, data_ended_ = false;
};

}  // namespace

Decoded decode_png(const Encoded& file) {
  if (!file.has(kSignature + 4, "IHDR") || file.big(kSignature, 4) != 13)
    file.fail(kSignature, "the first chunk is not a PNG header");
  return Picture(file).decode();
}

}  // namespace tessera::vision
