#include "cli/inputs.h"

#include <filesystem>

#include "cli/options.h"
#include "core/error.h"
#include "core/text_file.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> images_in(const std::string& folder, std::error_code& error) {
  return files_below(folder, vision::is_image_name, error);
}

}  // namespace

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

vision::Image load_image(const std::string& file) {
  if (file == "-") return vision::decode_image(bytes_of(read_stdin(kMostInput)), "standard input");
  std::error_code error;
  if (!fs::is_directory(file, error)) return vision::load_image(file);
  images_in(file, error);
  throw IoError(concat(
      file, ": ",
      error ? error.message() : "this folder has no images (jpg, png, webp, tiff, bmp, gif)"));
}

audio::Sound load_sound(const std::string& file) {
  if (file != "-") return audio::load_sound(file);
  return audio::decode_sound(bytes_of(read_stdin(kMostInput)), "standard input");
}

std::vector<std::string> expand_folders(const std::vector<std::string>& given) {
  std::vector<std::string> files;
  for (const std::string& name : given) {
    std::error_code error;
    std::vector<fs::path> found;
    if (fs::is_directory(name, error)) found = images_in(name, error);
    if (found.empty() || error) found = {name};
    for (const fs::path& file : found) files.push_back(file.string());
  }
  return files;
}

}  // namespace tessera::cli
