// Conversations by chat templates, as HF's apply_chat_template renders them
// (make_chat_template.py).
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/text_file.h"

namespace tessera::text {
namespace {

#ifndef TESSERA_CHAT_TEMPLATES
#define TESSERA_CHAT_TEMPLATES TESSERA_SOURCE_DIR "/tests/data/chat_templates"
#endif
const std::filesystem::path kFolder = TESSERA_CHAT_TEMPLATES;

Conversation conversation(const Config& json) {
  Conversation out;
  const Config messages = json.at("messages");
  for (std::size_t i = 0; i < messages.size(); ++i) out.messages.push_back(messages[i]);
  if (json.has("tools")) out.tools = json.at("tools");
  out.add_generation_prompt = json.boolean("prompt", false);
  return out;
}

std::map<std::string, std::string> tokens(const Config& golden) {
  const Config all = golden.at("tokens");
  std::map<std::string, std::string> out;
  for (const std::string& name : all.keys()) out[name] = all.string(name);
  return out;
}

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
  const Config golden = Config::read(kFolder / "golden.json");
  const Config templates = golden.at("templates"), conversations = golden.at("conversations");
  ASSERT_GE(templates.size(), 1u);
  for (const std::string& name : templates.keys()) {
    const std::string source = read_text_file(kFolder / (name + ".jinja"));
    const Config expected = templates.at(name);
    for (std::size_t i = 0; i < conversations.size(); ++i) {
      SCOPED_TRACE(concat(name, ", conversation ", i));
      const auto got = rendered(source, conversation(conversations[i]), tokens(golden));
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
  const Config golden = Config::read(kFolder / "golden.json");
  if (!golden.has("constructs")) GTEST_SKIP() << "other templates";
  const Config constructs = golden.at("constructs");
  ASSERT_GT(constructs.size(), 40u);
  for (std::size_t i = 0; i < constructs.size(); ++i) {
    const std::string source = constructs[i][0].as_string();
    SCOPED_TRACE(source);
    expect_same(rendered(source, conversation(golden.at("conversations")[0]), tokens(golden)),
                constructs[i][1]);
  }
}

}  // namespace
}  // namespace tessera::text
