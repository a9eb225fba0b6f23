// What tests/golden/make_images.py had Pillow and Hugging Face's image processors make of the same
// input.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "core/config.h"
#include "unit/vision_fixtures.h"
#include "vision/image.h"
#include "vision/image_processor.h"

namespace tessera::vision {
namespace {

Config golden(const char* name) { return Config::read(data_folder() / name); }

std::uint32_t crc32_of(const Tensor& tensor) {
  return crc32({static_cast<const std::uint8_t*>(tensor.raw()), tensor.nbytes()});
}

TEST(ImageFiles, AreReadAsPillowDoes) {
  const Config files = golden("files.json");
  ASSERT_GT(files.size(), 90u);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const std::string name = files[i].string("file");
    SCOPED_TRACE(name);
    const Image image = load_image(data_folder() / name);
    EXPECT_EQ(image.width, files[i].integer("width"));
    EXPECT_EQ(image.height, files[i].integer("height"));
    EXPECT_EQ(crc32(image.pixels), files[i].integer("crc32"));
  }
}

TEST(Resize, IsPillowsBitForBit) {
  const Config cases = golden("resize.json");
  ASSERT_GT(cases.size(), 600u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i].dump());
    const auto number = [&](std::size_t k) { return cases[i][k].as_integer(); };
    const Image image = resize(pattern(number(0), number(1)), number(2), number(3),
                               static_cast<Resample>(number(4)));
    ASSERT_EQ(crc32(image.pixels), number(5));
  }
}

TEST(ImageProcessors, AgreeWithHuggingFace) {
  const Config processors = golden("processors.json");
  ASSERT_GT(processors.size(), 20u);
  for (std::size_t i = 0; i < processors.size(); ++i) {
    const ImageProcessor processor(processors[i].at("config"));
    const Config cases = processors[i].at("cases");
    for (std::size_t k = 0; k < cases.size(); ++k) {
      SCOPED_TRACE(processors[i].at("config").dump() + " " + cases[k].at("picture").dump());
      const auto size = cases[k].integers("picture"), places = cases[k].integers("places");
      const Tensor pixels = processor(pattern(size[0], size[1]));
      ASSERT_EQ(pixels.shape(), Shape(cases[k].integers("shape")));
      const std::vector<double> values = cases[k].numbers("values");
      for (std::size_t n = 0; n < places.size(); ++n)
        EXPECT_NEAR(pixels.data()[places[n]], values[n], 1e-6);
      EXPECT_EQ(crc32_of(pixels), cases[k].integer("crc32"));
    }
  }
}

TEST(RealImages, PhotosAndWhatViTSeesOfThem) {
  const char* variable = std::getenv("TESSERA_SHARED");
  const std::filesystem::path shared = variable ? variable : TESSERA_SOURCE_DIR "/../shared";
  const std::filesystem::path folder = shared / "data/flickr8k/images";
  if (!std::filesystem::is_directory(folder))
    GTEST_SKIP() << folder << " is not here (TESSERA_SHARED names another place)";
  const ImageProcessor processor{Config()};
  const Config photos = golden("real.json");
  ASSERT_EQ(photos.size(), 50u);
  for (std::size_t i = 0; i < photos.size(); ++i) {
    SCOPED_TRACE(photos[i].string("file"));
    const Image image = load_image(folder / photos[i].string("file"));
    EXPECT_EQ(image.width, photos[i].integer("width"));
    EXPECT_EQ(crc32(image.pixels), photos[i].integer("crc32"));
    EXPECT_EQ(crc32_of(processor(image)), photos[i].integer("processed_crc32"));
  }
}

}  // namespace
}  // namespace tessera::vision
