#include <algorithm>
#include <vector>

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

struct Size {
  std::int64_t width = 0, height = 0;
};

/// A chunk of the RIFF container: name at `at`, length, `length` bytes, padded to even.
struct Chunk {
  std::size_t at = 0, length = 0;
  std::size_t body() const { return at + 8; }
  std::size_t next() const { return body() + length + (length & 1); }
};

/// The coded picture and what it needs.
struct Bitstream {
  Chunk alpha, picture;  // ALPH (absent: length 0) and VP8 or VP8L
  Size size;
};

/// The chunks of [begin, end).
template <class Visit>
void for_each_chunk(const Encoded& file, std::size_t begin, std::size_t end, const Visit& visit) {
  for (std::size_t at = begin; at + 8 <= end;) {
    const Chunk chunk{at, file.little(at + 4, 4)};
    file.part(chunk.body(), chunk.length);
    if (chunk.body() + chunk.length > end) file.fail(at, "a chunk reaches beyond the one it is in");
    if (!visit(chunk)) return;
    at = chunk.next();
  }
}

Size bitstream_size(const Encoded& file, const Chunk& chunk) {
  const std::size_t at = chunk.body();
  if (file.has(chunk.at, "VP8L")) {
    if (chunk.length < 5 || file.u8(at) != 0x2f) file.fail(at, "not a lossless WebP picture");
    const std::uint32_t bits = file.little(at + 1, 4);
    return {(bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1};
  }
  if (chunk.length < 10 || !file.has(at + 3, "\x9d\x01\x2a"))
    file.fail(at, "not a lossy WebP picture");
  return {file.little(at + 6, 2) & 0x3fff, file.little(at + 8, 2) & 0x3fff};
}

Bitstream find_bitstream(const Encoded& file, std::size_t begin, std::size_t end) {
  Bitstream found;
  for_each_chunk(file, begin, end, [&](const Chunk& chunk) {
    if (file.has(chunk.at, "ALPH")) found.alpha = chunk;
    if (!file.has(chunk.at, "VP8 ") && !file.has(chunk.at, "VP8L")) return true;
    found.picture = chunk;
    return false;
  });
  if (found.picture.length == 0) file.fail(begin, "no picture");
  found.size = bitstream_size(file, found.picture);
  file.check_size(found.size.width, found.size.height);
  return found;
}

void little_endian(std::vector<std::uint8_t>& out, std::int64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

/// A still WebP file of one bitstream.
std::vector<std::uint8_t> still_file(const Encoded& file, const Bitstream& bitstream) {
  std::vector<std::uint8_t> out;
  const auto append = [&out](std::span<const std::uint8_t> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  const auto text = [&out](std::string_view name) {
    out.insert(out.end(), name.begin(), name.end());
  };
  text("RIFF....WEBP");
  if (bitstream.alpha.length > 0) {
    text("VP8X");
    little_endian(out, 10, 4);
    little_endian(out, 0x10, 4);  // has alpha
    little_endian(out, bitstream.size.width - 1, 3);
    little_endian(out, bitstream.size.height - 1, 3);
  }
  for (const Chunk& chunk : {bitstream.alpha, bitstream.picture}) {
    if (chunk.length == 0) continue;
    append(file.part(chunk.at, 8 + chunk.length));
    if (chunk.length & 1) out.push_back(0);
  }
  std::vector<std::uint8_t> length;
  little_endian(length, static_cast<std::int64_t>(out.size()) - 8, 4);
  std::copy(length.begin(), length.end(), out.begin() + 4);
  return out;
}

Image decode_bitstream(const Encoded& file, const Bitstream& bitstream) {
  return decode_by_opencv(file, still_file(file, bitstream), bitstream.size.width,
                          bitstream.size.height);
}

/// The first frame of an animation, on a black canvas.
Image first_frame(const Encoded& file, const Chunk& frame, const Size& canvas) {
  constexpr std::size_t kFrameHeader = 16;
  if (frame.length < kFrameHeader) file.fail(frame.at, "a frame of ", frame.length, " bytes");
  const std::int64_t x = file.little(frame.body(), 3) * 2, y = file.little(frame.body() + 3, 3) * 2;
  const Bitstream bitstream =
      find_bitstream(file, frame.body() + kFrameHeader, frame.body() + frame.length);
  if (x + bitstream.size.width > canvas.width || y + bitstream.size.height > canvas.height)
    file.fail(frame.at, "the first frame is not within the picture");
  const Image part = decode_bitstream(file, bitstream);
  Image image{canvas.width, canvas.height, {}};
  image.pixels.resize(static_cast<std::size_t>(canvas.width * canvas.height * 3));
  for (std::int64_t row = 0; row < part.height; ++row)
    std::copy_n(part.pixels.data() + row * part.width * 3, part.width * 3,
                image.pixels.data() + ((y + row) * canvas.width + x) * 3);
  return image;
}

}  // namespace

Decoded decode_webp(const Encoded& file) {
  if (!file.has(8, "WEBP")) file.fail(8, "a RIFF file, but not of WebP");
  const std::size_t riff_bytes = file.little(4, 4);
  file.part(8, riff_bytes);
  const std::size_t begin = 12, end = 8 + riff_bytes;
  if (!file.has(begin, "VP8X"))
    return {decode_bitstream(file, find_bitstream(file, begin, end)), 1};

  if (file.little(begin + 4, 4) < 10) file.fail(begin, "the header is too short");
  const Size canvas{file.little(begin + 12, 3) + 1, file.little(begin + 15, 3) + 1};
  file.check_size(canvas.width, canvas.height);
  Chunk exif, xmp, frame;
  for_each_chunk(file, begin, end, [&](const Chunk& chunk) {
    if (file.has(chunk.at, "EXIF")) exif = chunk;
    if (file.has(chunk.at, "XMP ")) xmp = chunk;
    if (file.has(chunk.at, "ANMF") && frame.length == 0) frame = chunk;
    return true;
  });
  const int orientation =
      orientation_of(file.part(exif.body(), exif.length), file.part(xmp.body(), xmp.length));
  if (frame.length > 0) return {first_frame(file, frame, canvas), orientation};
  const Bitstream bitstream = find_bitstream(file, begin, end);
  if (bitstream.size.width != canvas.width || bitstream.size.height != canvas.height)
    file.fail(begin, "the picture has another size than the file");
  return {decode_bitstream(file, bitstream), orientation};
}

}  // namespace tessera::vision
