#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "vision/encoded.h"
#include "vision/image.h"

namespace tessera::vision {

/// A picture as it is stored, and the EXIF orientation (1 to 8) it is to be shown in.
struct Decoded {
  Image image;
  int orientation = 1;
};

/// One decoder a format. Each parses the container itself, so that size and completeness are known
/// before any memory is taken or a foreign codec sees a byte, and hands the codec a file free of
/// everything but the picture.
Decoded decode_jpeg(const Encoded& file);
Decoded decode_png(const Encoded& file);
Decoded decode_webp(const Encoded& file);
Decoded decode_tiff(const Encoded& file);
Decoded decode_bmp(const Encoded& file);
Decoded decode_gif(const Encoded& file);

/// A complete file through OpenCV's codec for it, to RGB as Pillow's convert("RGB") does: alpha is
/// dropped, 16-bit grey saturates at 255, 16-bit colour keeps its high byte. FormatError where the
/// codec refuses it or the size differs.
Image decode_by_opencv(const Encoded& file, std::span<const std::uint8_t> bytes, std::int64_t width,
                       std::int64_t height);
/// The same for JPEG of one or three components, without loading OpenCV's codecs.
Image decode_by_libjpeg(const Encoded& file, std::span<const std::uint8_t> bytes,
                        std::int64_t width, std::int64_t height);
/// decode_by_opencv for 8-bit grey, one byte a pixel.
std::vector<std::uint8_t> decode_grey_by_opencv(const Encoded& file,
                                                std::span<const std::uint8_t> bytes,
                                                std::int64_t width, std::int64_t height);

/// A colour from its ink and the black ink: (255 - ink) * (255 - black) / 255, rounded as Pillow
/// does.
std::uint8_t cmyk_to_rgb(int ink, int black);

/// Orientation by an EXIF block (with or without "Exif\0\0" before it), else by an XMP packet
/// (tiff:Orientation). 1 where neither has it: broken metadata is no reason to refuse a picture.
int orientation_of(std::span<const std::uint8_t> exif, std::span<const std::uint8_t> xmp);
/// The picture turned and mirrored to stand upright.
Image upright(Image image, int orientation);

}  // namespace tessera::vision
