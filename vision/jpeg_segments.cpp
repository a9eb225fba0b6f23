#include "vision/jpeg_segments.h"

#include <algorithm>
#include <cstring>

namespace tessera::vision {
namespace {

bool starts_frame(std::uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != kJpegDht && marker != 0xc8 &&
         marker != kJpegDac;
}
/// Markers without length and content.
bool stands_alone(std::uint32_t marker) {
  return marker <= 0x01 || (marker >= kJpegRst0 && marker <= kJpegSoi);
}

void read_frame(const Encoded& file, const JpegSegment& segment, JpegLayout& layout) {
  const std::size_t at = segment.at;
  if (!layout.components.empty()) file.fail(at, "a second frame header");
  const std::uint32_t marker = segment.marker;
  if (marker > kJpegSof2 && marker != 0xc9 && marker != 0xca)
    file.unsupported("lossless and hierarchical JPEG");
  if (file.u8(at) != 8) file.unsupported(file.u8(at), " bits a sample; only 8 is read");
  layout.frame = marker;
  layout.height = file.big(at + 1, 2);
  layout.width = file.big(at + 3, 2);
  file.check_size(layout.width, layout.height);
  const std::uint32_t count = file.u8(at + 5);
  if (count != 1 && count != 3 && count != 4)
    file.unsupported(count, " colour components; 1, 3 or 4 are read");
  if (segment.length != 6 + count * 3)
    file.fail(at, "a frame header of ", segment.length, " bytes");
  for (std::size_t entry = at + 6; entry < at + segment.length; entry += 3) {
    const JpegComponent component{file.u8(entry), file.u8(entry + 1) >> 4, file.u8(entry + 1) & 15};
    if (component.h < 1 || component.h > 4 || component.v < 1 || component.v > 4)
      file.fail(entry, "sampling factors of ", component.h, " x ", component.v);
    layout.h = std::max(layout.h, component.h);
    layout.v = std::max(layout.v, component.v);
    layout.components.push_back(component);
  }
}

/// Where the coded data that begins at `at` ends: the next marker other than a restart.
std::size_t end_of_codes(const Encoded& file, std::size_t at) {
  const std::uint8_t* const data = file.bytes().data();
  while (at + 1 < file.size()) {
    const void* found = std::memchr(data + at, 0xff, file.size() - at - 1);
    if (found == nullptr) break;
    at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - data);
    const std::uint8_t next = data[at + 1];
    if (next == 0xff)
      at += 1;  // fill byte
    else if (next == 0 || (next >= kJpegRst0 && next < kJpegSoi))
      at += 2;
    else
      return at;
  }
  file.fail(file.size(), "the file is truncated: the coded picture has no end");
}

JpegSegment next_segment(const Encoded& file, std::size_t at) {
  while (true) {
    while (file.u8(at) != 0xff) ++at;  // bytes between segments are skipped, as all decoders do
    while (file.u8(at) == 0xff) ++at;
    JpegSegment segment{file.u8(at), at + 1, 0, 0};
    if (stands_alone(segment.marker)) {
      ++at;
      continue;
    }
    if (segment.marker == kJpegEoi) return segment;
    const std::size_t length = file.big(segment.at, 2);
    if (length < 2) file.fail(segment.at, "a segment of length ", length);
    segment.at += 2;
    segment.length = length - 2;
    file.part(segment.at, segment.length);
    if (segment.marker == kJpegSos)
      segment.data_end = end_of_codes(file, segment.at + segment.length);
    return segment;
  }
}

/// Every component needs a scan with its mean values, and every block of it at least one bit there.
void check_complete(const Encoded& file, const JpegLayout& layout) {
  std::int64_t blocks = 0, bytes = 0;
  for (const JpegComponent& component : layout.components) {
    bool coded = false;
    for (const JpegSegment& segment : layout.segments) {
      if (segment.marker != kJpegSos) continue;
      const std::size_t count = file.u8(segment.at);
      const bool has_means = !layout.progressive() || file.u8(segment.at + 1 + count * 2) == 0;
      for (std::size_t i = 0; i < count; ++i)
        coded |= has_means && file.u8(segment.at + 1 + i * 2) == component.id;
    }
    if (!coded)
      file.fail(file.size(), "the file is truncated: colour component ", component.id,
                " has no data");
    blocks += layout.blocks_across(component) * layout.blocks_down(component);
  }
  for (const JpegSegment& segment : layout.segments)
    if (segment.marker == kJpegSos)
      bytes += static_cast<std::int64_t>(segment.data_end - segment.at);
  if (!layout.arithmetic() && blocks / 8 > bytes)
    file.fail(file.size(), "the file is truncated: ", bytes, " bytes can't hold ", blocks,
              " blocks");
}

}  // namespace

JpegLayout read_jpeg_layout(const Encoded& file) {
  JpegLayout layout;
  for (std::size_t at = 2;;) {
    const JpegSegment segment = next_segment(file, at);
    if (segment.marker == kJpegEoi) break;
    if (starts_frame(segment.marker)) read_frame(file, segment, layout);
    if (segment.marker == kJpegSos && layout.components.empty())
      file.fail(segment.at, "a scan before the frame header");
    if (segment.marker == kJpegApp0 && segment.length >= 14 &&
        file.has(segment.at, std::string_view("JFIF\0", 5)))
      layout.jfif = true;
    if (segment.marker == kJpegApp14 && segment.length >= 12 && file.has(segment.at, "Adobe"))
      layout.adobe_transform = static_cast<int>(file.u8(segment.at + 11));
    at = segment.data_end > 0 ? segment.data_end : segment.at + segment.length;
    layout.segments.push_back(segment);
  }
  if (layout.components.empty()) file.fail(file.size(), "no picture before the end marker");
  check_complete(file, layout);
  return layout;
}

}  // namespace tessera::vision
