#include "fusion/prompt.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"

namespace tessera::fusion {
namespace {

constexpr std::string_view kImageMark = "{image}", kAudioMark = "{audio}";

std::size_t count_marks(std::string_view text, std::string_view mark) {
  std::size_t count = 0;
  for (auto at = text.find(mark); at != text.npos; at = text.find(mark, at + mark.size())) ++count;
  return count;
}

void check_marks(std::string_view mark, std::size_t marks, std::size_t given, const char* option) {
  if (marks > given) {
    throw ArgumentError(concat("the prompt has ", marks, " ", mark, " marks but ", given,
                               given == 1 ? " was given" : " were given", "; add one ", option,
                               " FILE for each"));
  }
}

template <class Part>
bool holds(const Prompt& prompt) {
  return std::ranges::any_of(prompt,
                             [](const auto& part) { return std::holds_alternative<Part>(part); });
}

}  // namespace

bool has_images(const Prompt& prompt) { return holds<Image>(prompt); }
bool has_sounds(const Prompt& prompt) { return holds<Sound>(prompt); }

std::string task_of(const Prompt& prompt) {
  return has_sounds(prompt) && !has_images(prompt) ? "transcribe" : "prompt";
}

Prompt parse_prompt(std::string_view text, std::vector<Image> images, std::vector<Sound> sounds) {
  const std::size_t image_marks = count_marks(text, kImageMark),
                    sound_marks = count_marks(text, kAudioMark);
  check_marks(kImageMark, image_marks, images.size(), "--image");
  check_marks(kAudioMark, sound_marks, sounds.size(), "--audio");
  Prompt prompt;
  auto image = std::move_iterator(images.begin());
  auto sound = std::move_iterator(sounds.begin());
  for (std::size_t i = image_marks; i < images.size(); ++i) prompt.emplace_back(*image++);
  for (std::size_t i = sound_marks; i < sounds.size(); ++i) prompt.emplace_back(*sound++);
  while (!text.empty()) {
    const std::size_t at = std::min(text.find(kImageMark), text.find(kAudioMark));
    if (at != 0) prompt.emplace_back(Text{std::string(text.substr(0, at))});
    if (at == text.npos) break;
    text.remove_prefix(at);
    const bool is_image = text.starts_with(kImageMark);
    if (is_image) {
      prompt.emplace_back(*image++);
    } else {
      prompt.emplace_back(*sound++);
    }
    text.remove_prefix((is_image ? kImageMark : kAudioMark).size());
  }
  return prompt;
}

}  // namespace tessera::fusion
