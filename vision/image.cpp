#include "vision/image.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/text_file.h"
#include "vision/codecs.h"

namespace tessera::vision {
namespace {

struct Format {
  const char* name;
  std::string_view magic;
  Decoded (*decode)(const Encoded&);
};

constexpr Format kFormats[] = {
    {"JPEG", "\xff\xd8\xff", decode_jpeg},
    {"PNG", "\x89PNG\r\n\x1a\n", decode_png},
    {"WebP", "RIFF", decode_webp},
    {"TIFF", std::string_view("II*\0", 4), decode_tiff},
    {"TIFF", std::string_view("MM\0*", 4), decode_tiff},
    {"GIF", "GIF87a", decode_gif},
    {"GIF", "GIF89a", decode_gif},
    {"BMP", "BM", decode_bmp},
};

bool is_image(std::span<const std::uint8_t> bytes) {
  return std::ranges::any_of(kFormats, [&](const Format& format) {
    return Encoded(bytes, "", format.name, {}).has(0, format.magic);
  });
}

std::vector<std::uint8_t> read_file(const std::filesystem::path& path, const ImageLimits& limits) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    throw IoError(concat(path.string(), ": is a directory"));
  std::ifstream in(path, std::ios::binary);
  if (!in) throw IoError(concat(path.string(), ": can't open: ", std::strerror(errno)));

  std::vector<std::uint8_t> bytes;
  std::size_t used = 0;
  while (
      in) {  // in steps, so that pipes work and a size is never believed before the bytes are there
    if (std::int64_t(used) > limits.max_file_bytes)
      throw UnsupportedError(concat(path.string(), ": more than ", limits.max_file_bytes,
                                    " bytes (ImageLimits::max_file_bytes)"));
    bytes.resize(std::max<std::size_t>(1 << 18, used * 2));
    in.read(reinterpret_cast<char*>(bytes.data()) + used, std::streamsize(bytes.size() - used));
    used += std::size_t(in.gcount());
    // What begins as no image is not read to its end.
    if (!is_image(std::span(bytes).first(used))) break;
  }
  if (in.bad()) throw IoError(concat(path.string(), ": read error after ", used, " bytes"));
  bytes.resize(used);
  return bytes;
}

}  // namespace

bool is_image_name(const std::filesystem::path& file) {
  return has_ending(file, {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"});
}

Image load_image(const std::filesystem::path& file, const ImageLimits& limits) {
  return decode_image(read_file(file, limits), file.string(), limits);
}

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                   const ImageLimits& limits) {
  if (std::int64_t(bytes.size()) > limits.max_file_bytes)
    throw UnsupportedError(concat(name, ": ", bytes.size(), " bytes; the limit is ",
                                  limits.max_file_bytes, " (ImageLimits::max_file_bytes)"));
  for (const Format& format : kFormats) {
    const Encoded file(bytes, name, format.name, limits);
    if (!file.has(0, format.magic)) continue;
    Decoded decoded = format.decode(file);
    return upright(std::move(decoded.image), decoded.orientation);
  }
  throw FormatError(concat(name, bytes.empty() ? ": the file is empty" : ": not an image",
                           "; expected JPEG, PNG, WebP, TIFF, BMP or GIF"));
}

}  // namespace tessera::vision
