#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "vision/codecs.h"
#include "vision/tiff_directory.h"

namespace tessera::vision {
namespace {

enum Compression : std::uint32_t {
  kNone = 1,
  kCcittRle = 2,
  kCcittFax3 = 3,
  kCcittFax4 = 4,
  kLzw = 5,
  kJpeg = 7,
  kDeflate = 8,
  kPackBits = 32773,
  kOldDeflate = 32946,
  kLzma = 34925,
  kZstd = 50000
};
enum Photometric : std::uint32_t {
  kWhiteIsZero = 0,
  kBlackIsZero = 1,
  kRgb = 2,
  kPalette = 3,
  kCmyk = 5,
  kYcbcr = 6
};
constexpr std::uint32_t kAssociatedAlpha = 1;

/// A picture is cut into parts, either strips or tiles. With `planar`, each sample has parts of its
/// own.
struct Layout {
  std::int64_t width = 0, height = 0;
  std::int64_t part_width = 0, part_height = 0;
  std::int64_t parts_across = 0, parts_down = 0;
  bool tiled = false, planar = false;
  std::int64_t samples = 1, bits = 1;
  std::int64_t colors = 1;  // samples that make the colour: 1, 3 or 4
  bool premultiplied =
      false;  // the sample after the colours is an alpha the colours are multiplied with
  std::uint32_t compression = kNone, photometric = kWhiteIsZero, fill_order = 1, predictor = 1;

  std::int64_t samples_in_part() const { return planar ? 1 : samples; }
  std::int64_t samples_kept() const { return colors + (premultiplied ? 1 : 0); }
  std::int64_t row_bytes() const { return (part_width * samples_in_part() * bits + 7) / 8; }
  /// Parts that foreign code decodes to a picture, not to the bytes of samples.
  bool is_picture() const {
    return compression == kJpeg || (compression >= kCcittRle && compression <= kCcittFax4);
  }
};

void check_supported(const Encoded& file, const TiffDirectory& tags, const Layout& l) {
  switch (l.compression) {
    case kNone:
    case kLzw:
    case kDeflate:
    case kOldDeflate:
    case kPackBits:
    case kLzma:
    case kZstd:
      break;
    case kCcittRle:
    case kCcittFax3:
    case kCcittFax4:
      if (l.samples != 1 || l.bits != 1 || l.photometric > kBlackIsZero)
        file.unsupported("fax data that is not black and white");
      break;
    case kJpeg:
      if (l.planar || l.bits != 8 || l.photometric == kPalette || l.photometric == kCmyk)
        file.unsupported("JPEG data in colour planes, palettes or CMYK");
      break;
    default:
      file.unsupported("compression ", l.compression);
  }
  if (l.photometric > kYcbcr || l.photometric == 4 ||
      (l.photometric == kYcbcr && l.compression != kJpeg))
    file.unsupported("colours of kind ", l.photometric, " with compression ", l.compression);
  const bool known_bits = l.bits == 8 || (l.bits == 16 && l.photometric != kPalette) ||
                          ((l.bits == 1 || l.bits == 2 || l.bits == 4) && l.samples == 1);
  if (!known_bits) file.unsupported(l.samples, " samples of ", l.bits, " bits");
  if (l.predictor != 1 && (l.predictor != 2 || l.bits < 8))
    file.unsupported("predictor ", l.predictor);
  if (tags.value(kTiffSampleFormat, 1) != 1)
    file.unsupported("samples that are not unsigned integers");
}

Layout read_layout(const Encoded& file, const TiffDirectory& tags) {
  Layout l;
  l.width = tags.value(kTiffWidth, 0);
  l.height = tags.value(kTiffHeight, 0);
  file.check_size(l.width, l.height);
  l.compression = tags.value(kTiffCompression, kNone);
  l.photometric = tags.value(kTiffPhotometric, kWhiteIsZero);
  l.fill_order = tags.value(kTiffFillOrder, 1);
  l.predictor = tags.value(kTiffPredictor, 1);
  l.samples = tags.value(kTiffSamples, 1);
  l.bits = tags.value(kTiffBits, 1);
  for (const std::uint32_t bits : tags.values(kTiffBits))
    if (bits != l.bits) file.unsupported("samples of different bits");
  l.colors = l.photometric == kCmyk ? 4 : l.photometric == kRgb || l.photometric == kYcbcr ? 3 : 1;
  if (l.samples < l.colors || l.samples > 16)
    file.fail(0, l.samples, " samples a pixel for ", l.colors, " colours");
  l.planar = tags.value(kTiffPlanar, 1) == 2 && l.samples > 1;
  l.premultiplied = l.samples > l.colors && tags.value(kTiffExtraSamples, 0) == kAssociatedAlpha;

  l.tiled = tags.has(kTiffTileWidth);
  constexpr std::uint32_t kAll = std::numeric_limits<std::uint32_t>::max();
  l.part_width = l.tiled ? tags.value(kTiffTileWidth, 0) : l.width;
  l.part_height = l.tiled ? tags.value(kTiffTileHeight, 0)
                          : std::min<std::int64_t>(tags.value(kTiffRowsPerStrip, kAll), l.height);
  file.check_size(l.part_width, l.part_height);
  if (l.tiled && (l.part_width % 16 != 0 || l.part_height % 16 != 0))
    file.fail(0, "tiles of ", l.part_width, " x ", l.part_height,
              " pixels; expected multiples of 16");
  l.parts_across = (l.width + l.part_width - 1) / l.part_width;
  l.parts_down = (l.height + l.part_height - 1) / l.part_height;
  check_supported(file, tags, l);
  return l;
}

/// One strip or tile.
struct Part {
  std::int64_t x = 0, y = 0, plane = 0;  // of its first pixel
  std::int64_t rows = 0;                 // coded; the last strip has fewer
  std::span<const std::uint8_t> data;
};

/// Bytes that one compressed byte can stand for at most.
std::int64_t most_expansion(std::uint32_t compression) {
  switch (compression) {
    case kNone:
      return 1;
    case kPackBits:
      return 64;
    case kDeflate:
    case kOldDeflate:
      return 1032;
    default:
      return 1 << 16;  // LZW up to 2731; the others: generous
  }
}

/// All parts that are needed, each known to lie within the file and to be long enough.
std::vector<Part> find_parts(const Encoded& file, const TiffDirectory& tags, const Layout& l) {
  const auto offsets = tags.values(l.tiled ? kTiffTileOffsets : kTiffStripOffsets);
  const auto lengths = tags.values(l.tiled ? kTiffTileBytes : kTiffStripBytes);
  const std::int64_t planes = l.planar ? l.samples_kept() : 1,
                     count = l.parts_across * l.parts_down * planes;
  if (static_cast<std::int64_t>(std::min(offsets.size(), lengths.size())) < count)
    file.fail(0, "expected ", count, l.tiled ? " tiles" : " strips", ", found ", offsets.size(),
              " offsets and ", lengths.size(), " lengths");
  std::vector<Part> parts;
  for (std::int64_t plane = 0; plane < planes; ++plane)
    for (std::int64_t y = 0; y < l.height; y += l.part_height)
      for (std::int64_t x = 0; x < l.width; x += l.part_width) {
        const std::size_t at = offsets[parts.size()];
        const std::int64_t rows = l.tiled ? l.part_height : std::min(l.part_height, l.height - y);
        const auto data = file.part(at, lengths[parts.size()]);
        if (l.row_bytes() * rows / most_expansion(l.compression) >
            static_cast<std::int64_t>(data.size()))
          file.fail(at, "the file is truncated: ", data.size(), " bytes can't hold ", rows,
                    " rows of ", l.row_bytes(), " bytes");
        parts.push_back({x, y, plane, rows, data});
      }
  return parts;
}

TiffWriter one_strip(const Layout& l, std::int64_t width, std::int64_t height) {
  TiffWriter out;
  out.set(kTiffWidth, {static_cast<std::uint32_t>(width)});
  out.set(kTiffHeight, {static_cast<std::uint32_t>(height)});
  out.set(kTiffRowsPerStrip, {static_cast<std::uint32_t>(height)});
  out.set(kTiffCompression, {l.compression});
  out.set(kTiffFillOrder, {l.fill_order});
  out.set(kTiffPlanar, {1});
  return out;
}

/// A part of fax or JPEG data as a picture.
Image decode_picture(const Encoded& file, const TiffDirectory& tags, const Layout& l,
                     const Part& part) {
  TiffWriter strip = one_strip(l, l.part_width, part.rows);
  strip.set(kTiffPhotometric, {l.photometric});
  strip.set(kTiffSamples, {static_cast<std::uint32_t>(l.samples)});
  strip.set(kTiffBits, std::vector<std::uint32_t>(static_cast<std::size_t>(l.samples),
                                                  static_cast<std::uint32_t>(l.bits)));
  if (l.samples > l.colors)  // "associated", or else the codec would multiply the colours with it
    strip.set(kTiffExtraSamples,
              std::vector<std::uint32_t>(static_cast<std::size_t>(l.samples - l.colors),
                                         kAssociatedAlpha));
  for (const std::uint32_t tag : {kTiffT4Options, kTiffT6Options, kTiffYcbcrSubsampling})
    if (tags.has(tag)) strip.set(tag, tags.values(tag));
  if (tags.has(kTiffJpegTables)) strip.set_bytes(kTiffJpegTables, tags.bytes(kTiffJpegTables));
  return decode_by_opencv(file, strip.file(part.data), l.part_width, part.rows);
}

/// A part's bytes, unpacked: to the codec they are the pixels of a grey picture, so that none of
/// its notions of colour, alpha and bits come in.
std::vector<std::uint8_t> decode_bytes(const Encoded& file, const Layout& l, const Part& part) {
  const std::size_t size = static_cast<std::size_t>(l.row_bytes() * part.rows);
  if (l.compression == kNone && l.fill_order == 1)
    return {part.data.begin(), part.data.begin() + static_cast<std::ptrdiff_t>(size)};
  TiffWriter strip = one_strip(l, l.row_bytes(), part.rows);
  strip.set(kTiffPhotometric, {kBlackIsZero});
  strip.set(kTiffSamples, {1});
  strip.set(kTiffBits, {8});
  return decode_grey_by_opencv(file, strip.file(part.data), l.row_bytes(), part.rows);
}

/// The samples of one row, narrowed to 8 bits as Pillow does (16-bit grey saturates, 16-bit colour
/// keeps its high byte); palette indices stay as they are.
void read_samples(const Layout& l, bool big_endian, std::span<const std::uint8_t> row,
                  std::vector<std::uint8_t>& out) {
  const std::size_t step = static_cast<std::size_t>(l.samples_in_part()),
                    bits = static_cast<std::size_t>(l.bits);
  if (bits == 8) {
    std::copy(row.begin(), row.end(), out.begin());
    if (l.predictor == 2)
      for (std::size_t i = step; i < out.size(); ++i)
        out[i] = static_cast<std::uint8_t>(out[i] + out[i - step]);
    return;
  }
  if (bits == 16) {
    std::vector<std::uint16_t> wide(out.size());
    for (std::size_t i = 0; i < wide.size(); ++i) {
      const std::uint32_t first = row[i * 2], second = row[i * 2 + 1];
      wide[i] = static_cast<std::uint16_t>(big_endian ? first << 8 | second : second << 8 | first);
      if (l.predictor == 2 && i >= step)
        wide[i] = static_cast<std::uint16_t>(wide[i] + wide[i - step]);
      out[i] =
          static_cast<std::uint8_t>(l.samples == 1 ? std::min<int>(wide[i], 255) : wide[i] >> 8);
    }
    return;
  }
  const std::uint32_t most = (1u << bits) - 1, scale = l.photometric == kPalette ? 1 : 255 / most;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t first = i * bits;
    out[i] = static_cast<std::uint8_t>((row[first / 8] >> (8 - bits - first % 8) & most) * scale);
  }
}

/// Colours of a pixel's kept samples.
class ToRgb {
 public:
  ToRgb(const Encoded& file, const TiffDirectory& tags, const Layout& layout) : layout_(layout) {
    if (layout.photometric != kPalette) return;
    map_ = tags.values(kTiffColorMap);
    if (map_.size() != std::size_t{3} << layout.bits)
      file.fail(0, "a colour map of ", map_.size(), " numbers");
  }

  void operator()(const std::uint8_t* in, std::uint8_t* out) const {
    switch (layout_.photometric) {
      case kPalette:
        for (std::size_t c = 0; c < 3; ++c)
          out[c] = static_cast<std::uint8_t>(map_[c * map_.size() / 3 + in[0]] / 256);
        break;
      case kCmyk:
        for (int c = 0; c < 3; ++c) out[c] = cmyk_to_rgb(in[c], in[3]);
        break;
      case kRgb:
        for (int c = 0; c < 3; ++c) out[c] = unmultiplied(in[c], in);
        break;
      default: {
        const bool inverted = layout_.photometric == kWhiteIsZero &&
                              layout_.bits < 16;  // Pillow leaves 16 bits as they are
        std::fill_n(out, 3,
                    static_cast<std::uint8_t>(inverted ? 255 - in[0] : unmultiplied(in[0], in)));
      }
    }
  }

 private:
  std::uint8_t unmultiplied(std::uint32_t value, const std::uint8_t* in) const {
    if (!layout_.premultiplied) return static_cast<std::uint8_t>(value);
    const std::uint32_t alpha = in[layout_.colors];
    return static_cast<std::uint8_t>(alpha == 0 ? 0 : std::min(value * 255 / alpha, 255u));
  }

  const Layout& layout_;
  std::vector<std::uint32_t> map_;
};

void copy_picture(const Image& part, std::int64_t x, std::int64_t y, Image& image) {
  const std::int64_t columns = std::min(part.width, image.width - x),
                     rows = std::min(part.height, image.height - y);
  for (std::int64_t row = 0; row < rows; ++row)
    std::copy_n(part.pixels.data() + row * part.width * 3, columns * 3,
                image.pixels.data() + ((y + row) * image.width + x) * 3);
}

Image empty_image(const Layout& l) {
  Image image{l.width, l.height, {}};
  image.pixels.resize(static_cast<std::size_t>(l.width * l.height * 3));
  return image;
}

Image decode_pictures(const Encoded& file, const TiffDirectory& tags, const Layout& l,
                      const std::vector<Part>& parts) {
  Image image = empty_image(l);
  for (const Part& part : parts)
    copy_picture(decode_picture(file, tags, l, part), part.x, part.y, image);
  return image;
}

Image decode_samples(const Encoded& file, const TiffDirectory& tags, const Layout& l,
                     const std::vector<Part>& parts) {
  const std::int64_t kept = l.samples_kept(), step = l.samples_in_part();
  const ToRgb to_rgb(file, tags, l);
  std::vector<std::uint8_t> samples(static_cast<std::size_t>(l.width * l.height * kept));
  std::vector<std::uint8_t> row_samples(static_cast<std::size_t>(l.part_width * step));
  for (const Part& part : parts) {
    const std::vector<std::uint8_t> bytes = decode_bytes(file, l, part);
    const std::int64_t rows = std::min(part.rows, l.height - part.y),
                       columns = std::min(l.part_width, l.width - part.x);
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto row_bytes = static_cast<std::size_t>(l.row_bytes());
      read_samples(l, tags.big_endian(),
                   std::span(bytes).subspan(static_cast<std::size_t>(row) * row_bytes, row_bytes),
                   row_samples);
      std::uint8_t* out = samples.data() + ((part.y + row) * l.width + part.x) * kept + part.plane;
      const std::uint8_t* in = row_samples.data();
      for (std::int64_t x = 0; x < columns; ++x, in += step, out += kept)
        std::copy_n(in, l.planar ? 1 : kept, out);
    }
  }
  Image image = empty_image(l);
  for (std::int64_t i = 0; i < l.width * l.height; ++i)
    to_rgb(samples.data() + i * kept, image.pixels.data() + i * 3);
  return image;
}

}  // namespace

Decoded decode_tiff(const Encoded& file) {
  const TiffDirectory tags(file);
  const Layout layout = read_layout(file, tags);
  const std::vector<Part> parts = find_parts(file, tags, layout);
  return {layout.is_picture() ? decode_pictures(file, tags, layout, parts)
                              : decode_samples(file, tags, layout, parts),
          orientation_of(file.bytes(), tags.bytes(kTiffXmp))};
}

}  // namespace tessera::vision
