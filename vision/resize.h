#pragma once
#include <cstdint>

#include "vision/image.h"
#include "vision/image_processor.h"

namespace tessera::vision {

/// A part of a picture: columns [left, left + width) and rows [top, top + height). It may reach
/// beyond the picture.
struct Window {
  std::int64_t left = 0, top = 0, width = 0, height = 0;
};

/// This window of what the picture, resized to width x height, would be; black outside of it. Only
/// the window is computed, so that a crop out of a very long picture costs no more than any other.
Image resize_window(const Image& image, std::int64_t width, std::int64_t height, Resample filter,
                    const Window& window);

}  // namespace tessera::vision
