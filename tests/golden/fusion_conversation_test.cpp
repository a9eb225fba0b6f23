// Conversations as tokens, and which of them are learnt, as transformers and TRL have them
// (make_chat_template.py).
#include "fusion/conversation.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/text_file.h"
#include "golden/chat.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

using golden::kChatTemplates;

/// tokenizer.json with the special tokens of golden.json beside it.
text::Tokenizer tokenizer(const std::string& kind, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(TESSERA_SOURCE_DIR "/tests/data/tokenizer/" + kind + "/tokenizer.json",
                             folder / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  std::ofstream(folder / "tokenizer_config.json") << R"({"bos_token": "<s>", "eos_token": "</s>"})";
  return text::Tokenizer::open(folder);
}

TEST(ConversationGolden, TokensAndAnswersAreThoseOfTransformers) {
  const testing::TemporaryFolder temporary;
  const Config golden = Config::read(kChatTemplates / "golden.json");
  const Config cases = golden.at("learnt");
  ASSERT_GE(cases.size(), 8u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Config c = cases[i];
    const std::string name = c.string("template"), kind = c.string("tokenizer");
    SCOPED_TRACE(concat(name, " with ", kind));
    const auto form =
        text::ChatTemplate::parse(read_text_file(kChatTemplates / (name + ".jinja")), name);
    const auto conversation = golden::conversation(
        golden.at("conversations")[static_cast<std::size_t>(c.integer("conversation"))]);
    Example example;
    example.messages = conversation.messages;
    if (form.knows_tools()) example.tools = conversation.tools;
    const ConversationTokens got =
        encode_conversation(tokenizer(kind, temporary.path / kind), form, example);
    std::ostringstream ids, answer;
    for (std::size_t k = 0; k < got.ids.size(); ++k) {
      ids << (k ? " " : "") << got.ids[k];
      answer << got.answer[k];
    }
    EXPECT_EQ(ids.str(), c.string("ids"));
    EXPECT_EQ(answer.str(), c.string("answer"));
  }
}

}  // namespace
}  // namespace tessera::fusion
