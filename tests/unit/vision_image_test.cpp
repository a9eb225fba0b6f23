#include "vision/image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "core/error.h"
#include "unit/vision_fixtures.h"

namespace tessera::vision {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

void append(Bytes& out, std::string_view text) { out.insert(out.end(), text.begin(), text.end()); }
void append_big(Bytes& out, std::uint32_t value, int bytes) {
  while (bytes-- > 0) out.push_back(static_cast<std::uint8_t>(value >> 8 * bytes));
}
void append_little(Bytes& out, std::uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

/// Where the text begins; the end where it isn't there.
Bytes::iterator find(Bytes& bytes, std::string_view text) {
  return std::search(bytes.begin(), bytes.end(), text.begin(), text.end(),
                     [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); });
}

/// What decoding says: "ok", or the kind of error and its message.
std::string outcome(const Bytes& bytes, const ImageLimits& limits = {}) {
  try {
    decode_image(bytes, "x", limits);
    return "ok";
  } catch (const FormatError& error) {
    return std::string("format: ") + error.what();
  } catch (const UnsupportedError& error) {
    return std::string("unsupported: ") + error.what();
  }
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != text.npos;
}
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(contains, text, part)

std::vector<std::filesystem::path> fixtures() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(data_folder()))
    if (entry.path().extension() != ".json") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

Bytes png_header(std::uint32_t width, std::uint32_t height, std::uint8_t depth = 8,
                 std::uint8_t color = 2) {
  Bytes chunk = bytes_of("IHDR");
  append_big(chunk, width, 4);
  append_big(chunk, height, 4);
  chunk.insert(chunk.end(), {depth, color, 0, 0, 0});
  Bytes png = bytes_of("\x89PNG\r\n\x1a\n");
  append_big(png, 13, 4);
  png.insert(png.end(), chunk.begin(), chunk.end());
  append_big(png, crc32(chunk), 4);
  return png;
}

TEST(Image, EveryTruncationIsAnErrorOrLosesNothing) {
  for (const auto& file : fixtures()) {
    SCOPED_TRACE(file.filename());
    const Bytes whole = read_bytes(file);
    const Image expected = decode_image(whole, "whole");
    std::size_t accepted = 0;
    for (std::size_t length = 0; length < whole.size(); ++length) {
      try {
        const Image image = decode_image(std::span(whole).first(length), "part");
        ++accepted;
        ASSERT_EQ(image.pixels, expected.pixels)
            << "cut to " << length << " of " << whole.size() << " bytes";
      } catch (const FormatError&) {
      }
    }
    // Padding, trailers and later frames may be missing, nothing that the picture needs.
    if (file.stem().string().find("animated") == std::string::npos) {
      EXPECT_LE(accepted, 4u);
    }
  }
}

TEST(Image, DamagedBytesGiveAnErrorOrAPicture) {
  std::mt19937 random(7);
  for (const auto& file : fixtures()) {
    SCOPED_TRACE(file.filename());
    const Bytes whole = read_bytes(file);
    for (int round = 0; round < 60; ++round) {
      Bytes damaged = whole;
      for (int i = 0; i < 3; ++i)
        damaged[random() % damaged.size()] ^= static_cast<std::uint8_t>(1u << random() % 8);
      try {
        const Image image = decode_image(damaged, "damaged");
        ASSERT_EQ(static_cast<std::int64_t>(image.pixels.size()), image.width * image.height * 3);
        ASSERT_GT(image.width * image.height, 0);
      } catch (const FormatError&) {
      } catch (const UnsupportedError&) {
      }
    }
  }
}

TEST(Image, MissingAndForeignFilesAreNamed) {
  EXPECT_THROW(load_image(data_folder() / "missing.png"), IoError);
  EXPECT_THROW(load_image(data_folder()), IoError);
  EXPECT_CONTAINS(outcome({}), "format: x: the file is empty");
  EXPECT_CONTAINS(outcome(bytes_of("%PDF-1.7 and so on")),
                  "format: x: not an image; expected JPEG, PNG");
  EXPECT_CONTAINS(outcome(bytes_of("RIFF\x10\0\0\0WAVEfmt ")), "format: x: WebP");
}

TEST(Image, LimitsHoldBeforeMemoryIsTaken) {
  for (const auto& file : fixtures()) {
    SCOPED_TRACE(file.filename());
    EXPECT_CONTAINS(outcome(read_bytes(file), {.max_pixels = 100}), "the limit is 100");
  }
  const Bytes png = read_bytes(data_folder() / "png_rgb8.png");
  EXPECT_CONTAINS(outcome(png, {.max_file_bytes = 50}), "the limit is 50");
  EXPECT_THROW(load_image(data_folder() / "png_rgb8.png", {.max_file_bytes = 50}),
               UnsupportedError);
}

TEST(Image, HostilePngHeaders) {
  const auto with_data = [](Bytes png) {
    append_big(png, 0, 4);
    append(png, "IDAT");
    append_big(png, 0x35af061e, 4);  // checksum of an empty chunk
    append_big(png, 0, 4);
    append(png, "IEND\xae\x42\x60\x82");
    return png;
  };
  EXPECT_CONTAINS(outcome(with_data(png_header(0x7fffffff, 0x7fffffff))),
                  "unsupported: x: PNG: the image has 2147483647");
  EXPECT_CONTAINS(outcome(with_data(png_header(0xffffffff, 0xffffffff))), "unsupported");
  EXPECT_CONTAINS(outcome(with_data(png_header(0, 5))), "the image is empty");
  EXPECT_CONTAINS(outcome(with_data(png_header(8, 8, 3))), "bad header");
  EXPECT_CONTAINS(outcome(with_data(png_header(8, 8, 8, 5))), "bad header");
  EXPECT_CONTAINS(outcome(with_data(png_header(8, 8))), "no picture data");
  EXPECT_CONTAINS(outcome(with_data(png_header(8, 8, 8, 3))), "format");

  Bytes png = read_bytes(data_folder() / "png_rgb8.png");
  png[60] ^= 1;
  EXPECT_CONTAINS(outcome(png), "checksum");
  Bytes huge = png_header(13000, 13000);  // within the limit, but no 26 bytes of data can hold it
  append_big(huge, 4, 4);
  Bytes data = bytes_of("IDAT\x78\x9c\x03\x01");
  huge.insert(huge.end(), data.begin(), data.end());
  append_big(huge, crc32(data), 4);
  append_big(huge, 0, 4);
  append(huge, "IEND\xae\x42\x60\x82");
  EXPECT_CONTAINS(outcome(huge), "4 bytes of compressed data can't hold 13000 x 13000 pixels");
}

Bytes jpeg_of_size(std::uint32_t width, std::uint32_t height) {
  Bytes jpeg = read_bytes(data_folder() / "jpeg_grey.jpg");
  const auto frame = find(jpeg, "\xff\xc0");
  const std::size_t at = static_cast<std::size_t>(frame - jpeg.begin()) + 5;
  for (std::size_t i = 0; i < 2; ++i) {
    jpeg[at + i] = static_cast<std::uint8_t>(height >> 8 * (1 - i));
    jpeg[at + 2 + i] = static_cast<std::uint8_t>(width >> 8 * (1 - i));
  }
  return jpeg;
}

TEST(Image, HostileJpegHeaders) {
  EXPECT_CONTAINS(outcome(jpeg_of_size(65535, 65535)), "unsupported: x: JPEG: the image has 65535");
  EXPECT_CONTAINS(outcome(jpeg_of_size(0, 10)), "the image is empty");
  EXPECT_CONTAINS(outcome(jpeg_of_size(13000, 13000)), "the file is truncated");
  EXPECT_CONTAINS(outcome(jpeg_of_size(24, 24)), "the coded picture ends early");
  EXPECT_EQ(outcome(jpeg_of_size(19, 13)), "ok");
}

TEST(Image, JpegWhoseDataEndsEarlyIsRefusedThoughItHasAnEnd) {
  for (const char* name : {"jpeg_420.jpg", "jpeg_restarts.jpg", "jpeg_grey.jpg", "jpeg_cmyk.jpg"}) {
    SCOPED_TRACE(name);
    Bytes jpeg = read_bytes(data_folder() / name);
    jpeg.erase(jpeg.end() - 30, jpeg.end() - 2);
    if (jpeg[jpeg.size() - 3] == 0xff) jpeg.erase(jpeg.end() - 3);
    EXPECT_CONTAINS(outcome(jpeg), "format: x: JPEG");
  }
}

TEST(Image, HostileHeadersOfTheOthers) {
  Bytes gif = bytes_of("GIF89a\xff\xff\xff\xff");
  append(gif, std::string_view("\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\1\0\0;", 18));
  EXPECT_CONTAINS(outcome(gif), "unsupported: x: GIF: the image has 65535");

  Bytes bmp = bytes_of("BM");
  for (const std::uint32_t value :
       {100u, 0u, 54u, 40u, 0x7fffffffu, 0x80000000u, 0x00180001u, 0u, 0u, 0u, 0u, 0u, 0u})
    append_little(bmp, value, 4);
  EXPECT_CONTAINS(outcome(bmp), "unsupported: x: BMP: the image has 2147483647");

  Bytes webp = bytes_of("RIFF");
  append_little(webp, 22, 4);
  append(webp, "WEBPVP8X");
  append_little(webp, 10, 4);
  append_little(webp, 0, 4);
  append_little(webp, 0xffffff, 3);
  append_little(webp, 0xffffff, 3);
  EXPECT_CONTAINS(outcome(webp), "unsupported: x: WebP: the image has 16777216");
}

/// A TIFF file of these tags, each with one number.
Bytes tiff(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> tags) {
  Bytes out = bytes_of("II*");
  out.push_back(0);
  append_little(out, 8, 4);
  append_little(out, static_cast<std::uint32_t>(tags.size()), 2);
  for (const auto& [tag, value] : tags) {
    append_little(out, tag, 2);
    append_little(out, 4, 2);
    append_little(out, 1, 4);
    append_little(out, value, 4);
  }
  append_little(out, 0, 4);
  return out;
}

TEST(Image, HostileTiffDirectories) {
  EXPECT_CONTAINS(outcome(tiff({})), "the image is empty");
  EXPECT_CONTAINS(outcome(tiff({{256, 0xffffffff}, {257, 0xffffffff}})),
                  "unsupported: x: TIFF: the image has 4294967295");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 1}, {273, 8}, {279, 64}})),
                  "ok");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 1}, {273, 999}, {279, 64}})),
                  "the file is truncated");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 1}, {273, 8}, {279, 9}})),
                  "9 bytes can't hold 8 rows");
  EXPECT_CONTAINS(
      outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 1}, {273, 8}, {278, 2}, {279, 64}})),
      "expected 4 strips");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {322, 0}, {323, 16}})),
                  "the image is empty");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {322, 7}, {323, 16}})),
                  "multiples of 16");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 3}, {262, 1}})), "unsupported");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 2}})),
                  "1 samples a pixel for 3 colours");
  EXPECT_CONTAINS(outcome(tiff({{256, 8}, {257, 8}, {258, 8}, {262, 3}, {273, 8}, {279, 64}})),
                  "a colour map of 0 numbers");
  Bytes endless = bytes_of("II*");
  endless.push_back(0);
  append_little(endless, 0xfffffff0, 4);
  EXPECT_CONTAINS(outcome(endless), "the file is truncated");
}

TEST(Image, BrokenMetadataIsNoReasonToRefuseAPicture) {
  Bytes jpeg = read_bytes(data_folder() / "jpeg_orientation6.jpg");
  const auto exif = find(jpeg, "Exif");
  ASSERT_NE(exif, jpeg.end());
  const Image turned = decode_image(jpeg, "turned");
  exif[10] = 0xee;  // the directory is now far behind the block's end
  exif[11] = 0xee;
  const Image upright = decode_image(jpeg, "upright");
  EXPECT_EQ(upright.width, turned.height);
  EXPECT_EQ(upright.height, turned.width);
}

TEST(Image, BytesAfterThePictureAreIgnored) {
  for (const auto& file : fixtures()) {
    SCOPED_TRACE(file.filename());
    Bytes bytes = read_bytes(file);
    const Image expected = decode_image(bytes, "as it is");
    append(bytes, "\xff\xd8 and more");
    EXPECT_EQ(decode_image(bytes, "with more").pixels, expected.pixels);
  }
}

}  // namespace
}  // namespace tessera::vision
