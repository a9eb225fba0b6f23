#include <csetjmp>
#include <cstdio>
// clang-format off
#include <jpeglib.h>  // takes FILE and size_t for granted
// clang-format on

#include "vision/codecs.h"

namespace tessera::vision {
namespace {

/// libjpeg reports by leaping out of its call. No object with a destructor lives where it leaps.
struct Reader {
  jpeg_decompress_struct decoder;
  jpeg_error_mgr errors;
  std::jmp_buf failed;
  char message[JMSG_LENGTH_MAX];
};

void leap(j_common_ptr decoder) {
  auto* reader = static_cast<Reader*>(decoder->client_data);
  (*decoder->err->format_message)(decoder, reader->message);
  std::longjmp(reader->failed, 1);
}

void keep_silent(j_common_ptr, int) {}

enum class Outcome { done, refused, other_size };

Outcome decode(Reader& reader, std::span<const std::uint8_t> bytes, Image& image) {
  jpeg_decompress_struct& d = reader.decoder;
  d.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = leap;
  reader.errors.emit_message = keep_silent;
  d.client_data = &reader;
  if (setjmp(reader.failed) != 0) return Outcome::refused;
  jpeg_create_decompress(&d);
  jpeg_mem_src(&d, const_cast<unsigned char*>(bytes.data()),
               static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&d, TRUE);
  d.out_color_space = JCS_RGB;
  jpeg_start_decompress(&d);
  if (d.output_width != image.width || d.output_height != image.height) return Outcome::other_size;
  while (d.output_scanline < d.output_height) {
    JSAMPROW row = image.pixels.data() + std::size_t{d.output_scanline} * d.output_width * 3;
    jpeg_read_scanlines(&d, &row, 1);
  }
  jpeg_finish_decompress(&d);
  return Outcome::done;
}

}  // namespace

Image decode_by_libjpeg(const Encoded& file, std::span<const std::uint8_t> bytes,
                        std::int64_t width, std::int64_t height) {
  Image image{width, height, {}};
  image.pixels.resize(static_cast<std::size_t>(width * height * 3));
  Reader reader{};
  const Outcome outcome = decode(reader, bytes, image);
  const std::int64_t found_width = reader.decoder.output_width,
                     found_height = reader.decoder.output_height;
  jpeg_destroy_decompress(&reader.decoder);
  if (outcome == Outcome::refused) file.fail(0, "the codec refuses the image: ", reader.message);
  if (outcome == Outcome::other_size)
    file.fail(0, "the header says ", width, " x ", height, " pixels, the codec found ", found_width,
              " x ", found_height);
  return image;
}

}  // namespace tessera::vision
