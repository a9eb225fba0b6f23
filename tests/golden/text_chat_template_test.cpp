// Conversations by chat templates, as HF's apply_chat_template renders them
// (make_chat_template.py).
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "core/text_file.h"
#include "golden/chat.h"

namespace tessera::text {
namespace {

using golden::conversation;
using golden::kChatTemplates;
using golden::special_tokens;

/// The rendering, or what was refused, behind "refused: ".
ChatTemplate::Rendered rendered(const std::string& source, const Conversation& c,
                                const std::map<std::string, std::string>& tokens) {
  try {
    return ChatTemplate::parse(source, "template").render(c, tokens);
  } catch (const FormatError& error) {
    return {concat("refused: ", error.what()), {}};
  }
}

void expect_same(const ChatTemplate::Rendered& got, const Config& expected) {
  if (expected.is_null()) {
    EXPECT_EQ(got.text.substr(0, 18), "refused: template:") << got.text;
  } else {
    EXPECT_EQ(got.text, expected.as_string());
  }
}

std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

TEST(ChatTemplateGolden, ConversationsAreThoseOfTransformers) {
  const Config golden = Config::read(kChatTemplates / "golden.json");
  const Config templates = golden.at("templates"), conversations = golden.at("conversations");
  ASSERT_GE(templates.size(), 1u);
  for (const std::string& name : templates.keys()) {
    const std::string source = read_text_file(kChatTemplates / (name + ".jinja"));
    const Config expected = templates.at(name);
    for (std::size_t i = 0; i < conversations.size(); ++i) {
      SCOPED_TRACE(concat(name, ", conversation ", i));
      const auto got = rendered(source, conversation(conversations[i]), special_tokens(golden));
      expect_same(got, expected.at("texts")[i]);
      if (!expected.has("answers") || expected.at("answers")[i].is_null()) continue;
      const Config answers = expected.at("answers")[i];
      ASSERT_EQ(got.answers.size(), answers.size());
      for (std::size_t k = 0; k < answers.size(); ++k) {
        const std::string_view text = got.text;
        EXPECT_EQ(characters(text.substr(0, got.answers[k].first)),
                  static_cast<std::size_t>(answers[k][0].as_integer()));
        EXPECT_EQ(characters(text.substr(0, got.answers[k].second)),
                  static_cast<std::size_t>(answers[k][1].as_integer()));
      }
    }
  }
}

TEST(ChatTemplateGolden, ConstructsAreThoseOfJinja) {
  const Config golden = Config::read(kChatTemplates / "golden.json");
  const Config constructs = golden.at("constructs");
  ASSERT_GT(constructs.size(), 40u);
  for (std::size_t i = 0; i < constructs.size(); ++i) {
    const std::string source = constructs[i][0].as_string();
    SCOPED_TRACE(source);
    expect_same(
        rendered(source, conversation(golden.at("conversations")[0]), special_tokens(golden)),
        constructs[i][1]);
  }
}

}  // namespace
}  // namespace tessera::text
