#include "vision/image_processor.h"

#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "unit/vision_fixtures.h"

namespace tessera::vision {
namespace {

ImageProcessor processor(const std::string& json) {
  return ImageProcessor(Config::parse(json, "preprocessor_config.json"));
}

Shape shape_of(const std::string& json, std::int64_t width, std::int64_t height) {
  return processor(json)(pattern(width, height)).shape();
}

template <class Kind>
std::string error_of(const std::string& json) {
  try {
    processor(json);
  } catch (const Kind& error) {
    return error.what();
  }
  return "no error of that kind";
}

TEST(ImageProcessor, AnEmptyConfigIsViTs) {
  const Tensor pixels = ImageProcessor(Config())(pattern(50, 20));
  EXPECT_EQ(pixels.shape(), Shape({3, 224, 224}));
  for (const float value : pixels.to_vector()) ASSERT_TRUE(value >= -1 && value <= 1);
}

TEST(ImageProcessor, NullsAreDefaults) {
  EXPECT_EQ(
      shape_of(R"({"size": null, "resample": null, "crop_size": null, "do_center_crop": null})", 9,
               9),
      Shape({3, 224, 224}));
}

TEST(ImageProcessor, SizesOfOddPictures) {
  const std::string edge =
      R"({"image_processor_type": "CLIPImageProcessor", "do_center_crop": false, "size": 7})";
  EXPECT_EQ(shape_of(edge, 1, 1), Shape({3, 7, 7}));
  EXPECT_EQ(shape_of(edge, 100, 10), Shape({3, 7, 70}));
  EXPECT_EQ(shape_of(edge, 10, 99), Shape({3, 69, 7}));
  EXPECT_EQ(shape_of(R"({"size": {"shortest_edge": 7, "longest_edge": 20}})", 100, 10),
            Shape({3, 2, 20}));
  EXPECT_EQ(shape_of(R"({"do_resize": false})", 3, 2), Shape({3, 2, 3}));
}

TEST(ImageProcessor, CropsOutOfLongPicturesWithoutMakingThem) {
  const Tensor pixels =
      processor(R"({"image_processor_type": "CLIPImageProcessor"})")(pattern(1, 60'000));
  EXPECT_EQ(pixels.shape(), Shape({3, 224, 224}));
}

TEST(ImageProcessor, ResultsWithoutPixelsOrWithTooManyAreRefused) {
  EXPECT_THROW(processor(R"({"size": {"shortest_edge": 1, "longest_edge": 3}})")(pattern(100, 1)),
               ShapeError);
  EXPECT_THROW(processor(R"({"size": {"shortest_edge": 224}})")(pattern(1, 60'000)), ShapeError);
  EXPECT_THROW(ImageProcessor{Config()}(Image{}), ShapeError);
}

TEST(ImageProcessor, SaysWhatItDoesNotDo) {
  EXPECT_NE(error_of<UnsupportedError>(R"({"image_processor_type": "PixtralImageProcessor"})")
                .find("ViT, DeiT, CLIP"),
            std::string::npos);
  EXPECT_NE(error_of<UnsupportedError>(R"({"do_pad": true, "pad_size": 5})").find("do_pad"),
            std::string::npos);
  EXPECT_NE(error_of<UnsupportedError>(R"({"resample": 6})").find("filter 6"), std::string::npos);
  for (const char* size : {R"({"longest_edge": 5})", R"({"max_height": 5, "max_width": 6})",
                           R"({"min_pixels": 5, "max_pixels": 6})", R"({"height": 5})",
                           R"({"height": 5, "width": 6, "shortest_edge": 7})"})
    EXPECT_NE(error_of<UnsupportedError>(concat(R"({"size": )", size, "}"))
                  .find("preprocessor_config.json: size"),
              std::string::npos)
        << size;
}

TEST(ImageProcessor, NamesTheKeyOfABadValue) {
  for (
      const auto& [json, key] : std::initializer_list<std::pair<const char*, const char*>>{
          {R"({"size": 0})", "size"},
          {R"({"size": -224})", "size"},
          {R"({"size": 1000000})", "size"},
          {R"({"size": "big"})", "size"},
          {R"({"size": [224]})", "size"},
          {R"({"size": {"height": 0, "width": 5}})", "size.height"},
          {R"({"size": {"height": 5.5, "width": 5}})", "size.height"},
          {R"({"do_resize": 1})", "do_resize"},
          {R"({"do_center_crop": true})", "crop_size"},
          {R"({"do_center_crop": true, "crop_size": {"shortest_edge": 5}})", "crop_size"},
          {R"({"image_mean": [0.5, 0.5]})", "image_mean"},
          {R"({"image_std": [0.5, 0, 0.5]})", "image_std"},
          {R"({"resample": "bicubic"})", "resample"},
          {R"({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 5, "width": 5}})",
           "size"},
          {R"({"image_processor_type": "ConvNextImageProcessor", "size": 50, "crop_pct": 0})",
           "crop_pct"}})
    EXPECT_NE(error_of<FormatError>(json).find(key), std::string::npos)
        << json << ": " << error_of<FormatError>(json);
}

}  // namespace
}  // namespace tessera::vision
