#pragma once
#include <span>
#include <string>
#include <vector>

#include "audio/sound.h"
#include "vision/image.h"

namespace tessera::cli {

/// Most bytes taken from standard input for an image or a sound.
constexpr std::size_t kMostInput = std::size_t{1} << 31;

std::span<const std::uint8_t> bytes_of(const std::string& text);

/// A file's image or sound; "-" is standard input.
vision::Image load_image(const std::string& file);
audio::Sound load_sound(const std::string& file);

/// Folders become the images in them and below, sorted; one without images or that can't be read
/// stays, and load_image() says why.
std::vector<std::string> expand_folders(const std::vector<std::string>& given);

}  // namespace tessera::cli
