#include "vision/resize.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "unit/vision_fixtures.h"

namespace tessera::vision {
namespace {

constexpr Resample kFilters[] = {Resample::nearest, Resample::lanczos, Resample::bilinear,
                                 Resample::bicubic, Resample::box,     Resample::hamming};

Image cut(const Image& image, const Window& window) {
  Image out{window.width, window.height, {}};
  for (std::int64_t y = window.top; y < window.top + window.height; ++y)
    for (std::int64_t x = window.left; x < window.left + window.width; ++x)
      for (std::int64_t c = 0; c < 3; ++c) {
        const bool inside = x >= 0 && y >= 0 && x < image.width && y < image.height;
        out.pixels.push_back(
            inside ? image.pixels[static_cast<std::size_t>((y * image.width + x) * 3 + c)] : 0);
      }
  return out;
}

TEST(Resize, TheSameSizeChangesNothing) {
  const Image image = pattern(13, 7);
  for (const Resample filter : kFilters)
    EXPECT_EQ(resize(image, 13, 7, filter).pixels, image.pixels);
}

TEST(Resize, OneColourStays) {
  Image image{17, 5, std::vector<std::uint8_t>(17 * 5 * 3, 201)};
  for (const Resample filter : kFilters) {
    for (const auto& [width, height] : {std::pair{1, 1}, {40, 3}, {16, 91}, {5, 5}}) {
      const Image out = resize(image, width, height, filter);
      EXPECT_EQ(out.pixels,
                std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3), 201));
    }
  }
}

TEST(Resize, AveragesAndRepeats) {
  const Image two{2, 1, {10, 20, 30, 20, 41, 0}};
  EXPECT_EQ(resize(two, 1, 1, Resample::box).pixels, (std::vector<std::uint8_t>{15, 31, 15}));
  EXPECT_EQ(resize(two, 4, 1, Resample::nearest).pixels,
            (std::vector<std::uint8_t>{10, 20, 30, 10, 20, 30, 20, 41, 0, 20, 41, 0}));
}

TEST(Resize, AWindowIsACutOfTheWhole) {
  struct Size {
    std::int64_t width, height, new_width, new_height;
  };
  // The last two go over the rows first.
  for (const Size& size :
       {Size{40, 30, 23, 17}, Size{9, 11, 30, 31}, Size{31, 20, 31, 9}, Size{20, 31, 9, 31},
        Size{20, 20, 20, 20}, Size{30, 60, 25, 17}, Size{12, 50, 40, 20}})
    for (const Resample filter : kFilters) {
      const Image image = pattern(size.width, size.height);
      const Image whole = resize(image, size.new_width, size.new_height, filter);
      for (const Window& window :
           {Window{2, 3, 5, 4}, Window{-3, -2, 6, 60}, Window{0, 0, 70, 70}, Window{4, 5, 1, 1}})
        EXPECT_EQ(resize_window(image, size.new_width, size.new_height, filter, window).pixels,
                  cut(whole, window).pixels);
    }
}

TEST(Resize, AWindowOfAnEnormousPictureIsCheap) {
  const Image line = pattern(1, 4);
  const Image part =
      resize_window(line, 1'000'000'000, 4'000'000'000, Resample::bicubic, {500'000'000, 3, 2, 2});
  EXPECT_EQ(part.pixels.size(), 12u);
}

TEST(Resize, EmptySidesAreRefused) {
  EXPECT_THROW(resize(pattern(3, 3), 0, 5, Resample::box), ShapeError);
  EXPECT_THROW(resize(pattern(3, 3), 5, -1, Resample::nearest), ShapeError);
  EXPECT_THROW(resize(Image{}, 5, 5, Resample::bilinear), ShapeError);
  EXPECT_THROW(resize_window(pattern(3, 3), 9, 9, Resample::box, {9, 0, 3, 3}), ShapeError);
  EXPECT_THROW(resize(pattern(3, 3), 5, 5, static_cast<Resample>(17)), ArgumentError);
}

}  // namespace
}  // namespace tessera::vision
