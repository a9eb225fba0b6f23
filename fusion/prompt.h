#pragma once
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "audio/sound.h"
#include "vision/image.h"

namespace tessera::fusion {

struct Text {
  std::string text;
};
using audio::Sound;
using vision::Image;

/// What the user gave, in order.
using Prompt = std::vector<std::variant<Text, Image, Sound>>;

bool has_images(const Prompt& prompt);
bool has_sounds(const Prompt& prompt);

/// The task whose start sequence suits a prompt: "transcribe" for sounds without images, else
/// "prompt".
std::string task_of(const Prompt& prompt);

/// A text with the marks {image} and {audio}: each takes the next of `images` or `sounds`. What is
/// left over comes first, before the text, images before sounds. Throws ArgumentError where marks
/// outnumber images or sounds.
Prompt parse_prompt(std::string_view text, std::vector<Image> images, std::vector<Sound> sounds);

}  // namespace tessera::fusion
