#include "fusion/prompt.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace tessera::fusion {
namespace {

Image image(std::int64_t width) {
  return {width, 1, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width))};
}
Sound sound(std::size_t samples) { return {std::vector<float>(samples), {}}; }

/// "T(text)", "I(width)", "S(samples)" in order.
std::string shape_of(const Prompt& prompt) {
  std::string out;
  for (const auto& part : prompt) {
    if (const auto* t = std::get_if<Text>(&part)) out += "T(" + t->text + ")";
    if (const auto* i = std::get_if<Image>(&part)) out += "I(" + std::to_string(i->width) + ")";
    if (const auto* s = std::get_if<Sound>(&part))
      out += "S(" + std::to_string(s->samples.size()) + ")";
  }
  return out;
}

TEST(Prompt, MarksTakeImagesAndSoundsInTheirOrder) {
  const std::vector<Image> images{image(1), image(2)};
  const std::vector<Sound> sounds{sound(7)};
  EXPECT_EQ(shape_of(parse_prompt("a {image} b {audio}{image} c", images, sounds)),
            "T(a )I(1)T( b )S(7)I(2)T( c)");
}

TEST(Prompt, WhatHasNoMarkComesFirst) {
  const std::vector<Image> images{image(1), image(2), image(3)};
  const std::vector<Sound> sounds{sound(7)};
  EXPECT_EQ(shape_of(parse_prompt("{image} x", images, sounds)), "I(1)I(2)S(7)I(3)T( x)");
  EXPECT_EQ(shape_of(parse_prompt("", images, {})), "I(1)I(2)I(3)");
}

TEST(Prompt, MoreMarksThanFilesIsAnErrorThatSaysHowMany) {
  const std::vector<Image> images{image(1)};
  try {
    parse_prompt("{image}{image}", images, {});
    FAIL();
  } catch (const ArgumentError& error) {
    EXPECT_NE(std::string(error.what()).find("2 {image} marks but 1"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(parse_prompt("{audio}", images, {}), ArgumentError);
}

TEST(Prompt, SoundsAloneAreTranscribed) {
  EXPECT_EQ(task_of({sound(1)}), "transcribe");
  EXPECT_EQ(task_of({sound(1), Text{"x"}}), "transcribe");
  EXPECT_EQ(task_of({sound(1), image(1)}), "prompt");
  EXPECT_EQ(task_of({image(1)}), "prompt");
  EXPECT_EQ(task_of({}), "prompt");
}

TEST(Prompt, OtherBracesAreText) {
  EXPECT_EQ(shape_of(parse_prompt("{imag} {image", {}, {})), "T({imag} {image)");
  EXPECT_TRUE(parse_prompt("", {}, {}).empty());
}

}  // namespace
}  // namespace tessera::fusion
