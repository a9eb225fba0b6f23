#include "vision/augment.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace tessera::vision {

Image random_view(const Image& image, double least_area, std::uint64_t seed) {
  Random random(seed);
  const auto uniform = [&](double from, double to) {
    return from + (to - from) * random.uniform();
  };
  const double area = uniform(least_area, 1), aspect = std::exp(uniform(-1, 1) * std::log(4.0 / 3));
  const auto side = [&](std::int64_t whole, double stretch) {
    const auto length = static_cast<std::int64_t>(
        std::lround(static_cast<double>(whole) * std::sqrt(area * stretch)));
    return std::clamp<std::int64_t>(length, 1, whole);
  };
  const auto place = [&](std::int64_t room) {
    return std::min(room, static_cast<std::int64_t>(uniform(0, static_cast<double>(room + 1))));
  };
  Image view{side(image.width, aspect), side(image.height, 1 / aspect), {}};
  const std::int64_t left = place(image.width - view.width),
                     top = place(image.height - view.height);
  const bool mirrored = uniform(0, 1) < 0.5;
  view.pixels.resize(static_cast<std::size_t>(view.width * view.height * 3));
  for (std::int64_t y = 0; y < view.height; ++y) {
    const std::uint8_t* from = image.pixels.data() + ((top + y) * image.width + left) * 3;
    std::uint8_t* to = view.pixels.data() + y * view.width * 3;
    for (std::int64_t x = 0; x < view.width; ++x)
      std::copy_n(from + (mirrored ? view.width - 1 - x : x) * 3, 3, to + x * 3);
  }
  return view;
}

}  // namespace tessera::vision
