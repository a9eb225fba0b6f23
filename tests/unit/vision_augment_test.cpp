#include "vision/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace tessera::vision {
namespace {

/// Every pixel says where it is.
Image coordinates(std::int64_t width, std::int64_t height) {
  Image image{width, height, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (const std::int64_t v : {x, y, std::int64_t{7}})
        image.pixels.push_back(static_cast<std::uint8_t>(v));
    }
  }
  return image;
}

TEST(RandomView, IsARectangleOfTheImageMirroredOrNot) {
  const Image image = coordinates(60, 40);
  std::set<bool> mirrored;
  std::set<std::int64_t> lefts;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Image view = random_view(image, 0.5, seed);
    ASSERT_EQ(std::ssize(view.pixels), view.width * view.height * 3);
    const double area = static_cast<double>(view.width * view.height) / (60.0 * 40.0);
    EXPECT_GE(area, 0.5 * 0.8) << "an edge may cut a little off";
    EXPECT_LE(area, 1);
    const auto at = [&](std::int64_t x, std::int64_t y, int c) -> std::int64_t {
      return view.pixels[static_cast<std::size_t>((y * view.width + x) * 3 + c)];
    };
    const bool turned = view.width > 1 && at(0, 0, 0) > at(1, 0, 0);
    const std::int64_t left = at(turned ? view.width - 1 : 0, 0, 0), top = at(0, 0, 1);
    mirrored.insert(turned);
    lefts.insert(left);
    for (std::int64_t y = 0; y < view.height; ++y) {
      for (std::int64_t x = 0; x < view.width; ++x) {
        ASSERT_EQ(at(x, y, 0), left + (turned ? view.width - 1 - x : x));
        ASSERT_EQ(at(x, y, 1), top + y);
        ASSERT_EQ(at(x, y, 2), 7);
      }
    }
  }
  EXPECT_EQ(mirrored.size(), 2u);
  EXPECT_GT(lefts.size(), 5u);
}

TEST(RandomView, FollowsFromTheSeed) {
  const Image image = coordinates(30, 50);
  const Image a = random_view(image, 0.3, 5), b = random_view(image, 0.3, 5);
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.pixels, b.pixels);
  const Image dot = random_view(coordinates(1, 1), 0.1, 3);
  EXPECT_EQ(dot.width * dot.height, 1);
}

}  // namespace
}  // namespace tessera::vision
