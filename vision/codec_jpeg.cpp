#include "vision/codecs.h"
#include "vision/jpeg_segments.h"

namespace tessera::vision {
namespace {

int read_orientation(const Encoded& file, const JpegLayout& layout) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::vector<std::uint8_t> exif;  // a long one is spread over several segments
  std::span<const std::uint8_t> xmp;
  for (const JpegSegment& segment : layout.segments) {
    if (segment.marker != kJpegApp1) continue;
    const auto bytes = file.part(segment.at, segment.length);
    if (bytes.size() >= kExif.size() && file.has(segment.at, kExif))
      exif.insert(exif.end(), bytes.begin() + kExif.size(), bytes.end());
    else if (bytes.size() >= kXmp.size() && file.has(segment.at, kXmp))
      xmp = bytes.subspan(kXmp.size());
  }
  return orientation_of(exif, xmp);
}

/// Ink and black are stored inverted, as Adobe does and Pillow assumes of all files. Where the inks
/// are coded as luma and chroma, those are of the colours red, green and blue, which are the
/// inverse once more.
Image decode_cmyk(const Encoded& file, const JpegLayout& layout) {
  const JpegHalves halves = split_jpeg(file, layout);
  Image image = decode_by_libjpeg(file, halves.colors, layout.width, layout.height);
  const Image black = decode_by_libjpeg(file, halves.black, layout.width, layout.height);
  const bool inverted = layout.adobe_transform <= 0;
  for (std::size_t i = 0; i < image.pixels.size(); ++i) {
    const int ink = inverted ? 255 - image.pixels[i] : image.pixels[i];
    image.pixels[i] = cmyk_to_rgb(ink, 255 - black.pixels[i / 3 * 3 + 2]);
  }
  return image;
}

}  // namespace

Decoded decode_jpeg(const Encoded& file) {
  const JpegLayout layout = read_jpeg_layout(file);
  const int orientation = read_orientation(file, layout);
  if (layout.components.size() == 4) return {decode_cmyk(file, layout), orientation};
  return {decode_by_libjpeg(file, clean_jpeg(file, layout), layout.width, layout.height),
          orientation};
}

}  // namespace tessera::vision
