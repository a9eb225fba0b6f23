#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "vision/encoded.h"

namespace tessera::vision {

enum JpegMarker : std::uint32_t {
  kJpegSof0 = 0xc0,
  kJpegSof2 = 0xc2,
  kJpegDht = 0xc4,
  kJpegDac = 0xcc,
  kJpegRst0 = 0xd0,
  kJpegSoi = 0xd8,
  kJpegEoi = 0xd9,
  kJpegSos = 0xda,
  kJpegDqt = 0xdb,
  kJpegDri = 0xdd,
  kJpegApp0 = 0xe0,
  kJpegApp1 = 0xe1,
  kJpegApp14 = 0xee
};

/// A segment of a JPEG file, and with a start of scan the coded data after it.
struct JpegSegment {
  std::uint32_t marker = 0;
  std::size_t at = 0, length = 0;  // of what follows marker and length
  std::size_t data_end = 0;  // of coded data, which begins at `at + length`; 0 for other segments
};

struct JpegComponent {
  std::uint32_t id = 0;
  std::int64_t h = 1, v = 1;  // sampling factors
};

/// What a JPEG file says before its pixels.
struct JpegLayout {
  std::vector<JpegSegment> segments;  // in file order, up to the end of the image
  std::uint32_t frame = 0;            // marker of the frame header: kJpegSof0, ...
  std::int64_t width = 0, height = 0;
  std::vector<JpegComponent> components;
  std::int64_t h = 1, v = 1;  // largest sampling factors
  bool jfif = false;          // says that three components are luma and chroma
  int adobe_transform =
      -1;  // of an Adobe segment: 0 for plain colours, else luma and chroma; -1: none

  bool arithmetic() const { return frame >= 0xc9; }
  bool progressive() const { return frame == kJpegSof2 || frame == 0xca; }
  /// Blocks of 8 x 8 samples of a component, as a scan of its own has them.
  std::int64_t blocks_across(const JpegComponent& component) const {
    return (width * component.h + 8 * h - 1) / (8 * h);
  }
  std::int64_t blocks_down(const JpegComponent& component) const {
    return (height * component.v + 8 * v - 1) / (8 * v);
  }
};

/// Walks all segments; FormatError where the image has no end, or a component no data.
JpegLayout read_jpeg_layout(const Encoded& file);

/// The file with nothing in it but the picture: no metadata, no stray bytes that decoders warn of,
/// each scan cut where its last block ends. All Huffman codes are walked for that (of progressive
/// files those of the coarse values); FormatError where they end early: a decoder would leave the
/// rest of such a picture grey.
std::vector<std::uint8_t> clean_jpeg(const Encoded& file, const JpegLayout& layout);

/// A file of four components (CMYK, YCCK) as two of three: one without the fourth component, and
/// one whose third component is that fourth, while the others are flat. Bits are copied, so samples
/// decode to what they were.
struct JpegHalves {
  std::vector<std::uint8_t> colors, black;
};
JpegHalves split_jpeg(const Encoded& file, const JpegLayout& layout);

}  // namespace tessera::vision
