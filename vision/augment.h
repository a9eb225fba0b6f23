#pragma once
#include <cstdint>

#include "vision/image.h"

namespace tessera::vision {

/// A view of an image for training (Szegedy et al. 2015; torchvision's RandomResizedCrop with
/// milder bounds, RandomHorizontalFlip): a rectangle of `least_area` to 1 of it, of its own aspect
/// times 3/4 to 4/3, mirrored half of the time. Follows from the image's size and the seed.
Image random_view(const Image& image, double least_area, std::uint64_t seed);

}  // namespace tessera::vision
