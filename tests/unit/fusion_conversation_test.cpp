// Conversations as examples: what is learnt of them, and what is refused.
#include "fusion/conversation.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "core/text_file.h"
#include "fusion/example_loss.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

const fs::path kData = TESSERA_SOURCE_DIR "/tests/data";

class ConversationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::copy(kData / "families/llama-published", checkpoint_);
    fs::copy_file(kData / "families/tessera-splice/tokenizer.json", checkpoint_ / "tokenizer.json");
    std::string config = read_text_file(checkpoint_ / "config.json");
    const std::string positions = "\"max_position_embeddings\": ";
    config.replace(config.find(positions), positions.size() + 2, positions + "256");
    std::ofstream(checkpoint_ / "config.json") << config;
  }
  /// A template that the tiny vocabulary has characters for.
  void write_template(const std::string& source) {
    std::ofstream(checkpoint_ / "chat_template.jinja") << source;
  }
  std::shared_ptr<const Model> model() const { return Model::open(checkpoint_); }
  Examples examples(const std::string& lines) const {
    std::ofstream(temporary_.path / "list.jsonl") << lines;
    return read_examples(temporary_.path / "list.jsonl");
  }
  std::string refusal(const std::string& lines) const {
    try {
      ExampleLoss(model(), examples(lines), {});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  }
  /// Which characters are learnt: those in brackets.
  std::string learnt(const text::ChatTemplate& form, const std::string& line) const {
    const auto tokenizer = model()->tokenizer;
    const auto tokens = encode_conversation(*tokenizer, form, examples(line).list.front());
    std::string out;
    bool inside = false;
    for (std::size_t i = 0; i <= tokens.ids.size(); ++i) {
      const bool answer = i < tokens.ids.size() && tokens.answer[i];
      if (answer != inside) out += answer ? '[' : ']';
      inside = answer;
      if (i < tokens.ids.size())
        out += tokenizer->decode(std::vector{tokens.ids[i]}, {.skip_special_tokens = false});
    }
    return out;
  }

  testing::TemporaryFolder temporary_;
  const fs::path checkpoint_ = temporary_.path / "model";
};

constexpr const char* kPlain =
    "{% for m in messages %}{{ m.role }} {{ m.content }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}";
constexpr const char* kTwoAnswers =
    R"({"messages": [{"role": "user", "content": "a dog"}, {"role": "assistant", "content": "the cat"}, )"
    R"({"role": "user", "content": "a cat"}, {"role": "assistant", "content": "the dog"}]})"
    "\n";
constexpr const char* kOneAnswer =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})"
    "\n";

TEST_F(ConversationTest, AnswersAndTheirEndsAreLearnt) {
  const auto plain = text::ChatTemplate::parse(kPlain, "t");
  EXPECT_EQ(learnt(plain, kTwoAnswers),
            "user a dog<|endoftext|>assistant[ the cat<|endoftext|>]user a cat<|endoftext|>"
            "assistant[ the dog<|endoftext|>]")
      << "a token across the beginning belongs to the answer";
  const auto marked = text::ChatTemplate::parse(
      "{% for m in messages %}{{ m.role }} {% if m.role == 'assistant' %}{% generation %}"
      "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %} end{% endfor %}",
      "t");
  EXPECT_EQ(learnt(marked, kTwoAnswers),
            "user a dog endassistant[ the cat] enduser a cat endassistant[ the dog] end");
}

TEST_F(ConversationTest, TheLossIsThatOfTheAnswers) {
  write_template(kPlain);
  Context ctx({.threads = 1});
  const auto loss = [&](const std::string& lines, const ExampleLossOptions& options = {}) {
    return ExampleLoss(model(), examples(lines), options);
  };
  // The same text, learnt as a prompt and its completion: the tokens are the same ones.
  write_template(
      "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ '<|endoftext|>' }}"
      "{% endif %}{% endfor %}");
  std::ofstream(checkpoint_ / "tokenizer_config.json") << R"({"eos_token": "<|endoftext|>"})";
  const ExampleLoss chat = loss(kOneAnswer);
  const std::vector<std::int64_t> first = {0};
  const auto sum = chat(ctx, first, 0);
  EXPECT_EQ(sum.count, 2);
  EXPECT_EQ(chat.targets(), 2);
  EXPECT_EQ(chat.longest(), 3);
  write_template(kPlain);
  const ExampleLoss both = loss(concat(kTwoAnswers, kOneAnswer));
  const std::vector<std::int64_t> all = {0, 1}, second = {1};
  const auto together = both(ctx, all, 0), a = both(ctx, first, 0), b = both(ctx, second, 0);
  EXPECT_EQ(together.count, a.count + b.count);
  EXPECT_EQ(together.count, both.targets());
  EXPECT_NEAR(together.loss.data()[0], a.loss.data()[0] + b.loss.data()[0], 1e-3f);
  EXPECT_EQ(loss(concat(kTwoAnswers, "{\"text\": \"a dog\"}\n")).examples().mixed, true);
}

TEST_F(ConversationTest, WhatATemplateCannotDoIsSaid) {
  const auto says = [&](const std::string& lines, const std::string& what) {
    const std::string found = refusal(lines);
    EXPECT_NE(found.find(what), std::string::npos) << found;
  };
  says(kOneAnswer, "has no chat template");
  says(kOneAnswer, "--chat-template chatml");
  write_template("{{ messages|length }}");
  says(kOneAnswer, "list.jsonl:1: the first 1 messages become another text");
  write_template("{{ raise_exception('not so') }}");
  says(kOneAnswer, "list.jsonl:1: ");
  says(kOneAnswer, "chat_template.jinja:1: the template says: not so");
  write_template(
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
  says(kOneAnswer, "writes no answer");
  write_template(kPlain);
  says(
      concat(kOneAnswer, R"({"tools": [{}], "messages": [{"role": "assistant", "content": "b"}]})"),
      "list.jsonl:2: has tools");
  says(R"({"messages": [{"role": "assistant", "content": "b"}]})", "list.jsonl:1: begins with");
  says(concat(R"({"messages": [{"role": "user", "content": ")", std::string(300, 'a'),
              R"("}, {"role": "assistant", "content": "b"}]})"),
       "context ends at 256");
  says(kOneAnswer, "nothing");
}

TEST_F(ConversationTest, MalformedMessagesAreNamedWithTheirLine) {
  const std::vector<std::pair<const char*, const char*>> all = {
      {R"("Hi")", ":2: messages: expected a list"},
      {R"([])", ":2: messages: expected a list"},
      {R"(["Hi"])", ":2: messages[0]: expected an object"},
      {R"([{"content": "a"}])", ":2: messages[0].role: is missing"},
      {R"([{"role": "bot", "content": "a"}])", "found \"bot\""},
      {R"([{"role": "user"}])", ":2: messages[0].content: is missing"},
      {R"([{"role": "user", "content": {}}])", "messages[0].content: expected a string"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])",
       "messages[0].content[0].text: is missing"},
      {R"([{"role": "user", "content": ["a"]}])", "messages[0].content[0]: expected an object"},
      {R"([{"role": "user", "content": [{"type": "video", "path": "a"}]}])",
       "messages[0].content[0].type: expected text, image or audio, found \"video\""},
      {R"([{"role": "user", "content": [{"type": "image"}]}])",
       "messages[0].content[0]: names no file"},
      {R"([{"role": "user", "content": [{"type": "image", "path": "gone.png"}]}])",
       "messages[0].content[0]: there is no file"},
      {R"([{"role": "user", "content": [{"type": "audio", "url": "https://a.b/c.mp3"}]}])",
       "messages[0].content[0].url: \"https://a.b/c.mp3\" is no file"},
      {R"([{"role": "assistant", "content": [{"type": "image", "path": "a.png"}]}])",
       "messages[0].content[0]: the assistant writes texts alone"},
      {R"([{"role": "assistant", "content": [{"type": "text", "text": " "}]}])",
       "an answer is empty"},
      {R"([{"role": "user", "content": null}])", "content: is missing"},
      {R"([{"role": "user", "content": "a"}])", "the last message is to be an answer"},
      {R"([{"role": "assistant", "content": " "}])", "an answer is empty"},
      {R"([{"role": "assistant", "tool_calls": "x"}])", "tool_calls: expected a list"},
      {R"([{"role": "assistant", "tool_calls": []}])", "content: is missing"},
  };
  for (const auto& [messages, expected] : all) {
    const std::string found = refusal(concat(kOneAnswer, "{\"messages\": ", messages, "}\n"));
    EXPECT_NE(found.find(expected), std::string::npos) << found;
    EXPECT_NE(found.find("list.jsonl:2: messages"), std::string::npos) << found;
  }
  EXPECT_NE(refusal(R"({"messages": [{"role": "assistant", "content": "a"}], "tools": {}})")
                .find("tools: expected a list"),
            std::string::npos);
}

TEST_F(ConversationTest, QuestionsEndWhereTheAnswerBegins) {
  const auto tokenizer = model()->tokenizer;
  const auto form = text::ChatTemplate::parse(kPlain, "t");
  const auto text = [&](const std::vector<std::int32_t>& ids) {
    return tokenizer->decode(ids, {.skip_special_tokens = false});
  };
  EXPECT_EQ(text(encode_question(*tokenizer, form, "", {Text{"a dog"}}).ids),
            "user a dog<|endoftext|>assistant ");
  EXPECT_EQ(text(encode_question(*tokenizer, form, "the", {Text{"dog"}}).ids),
            "system the<|endoftext|>user dog<|endoftext|>assistant ");
  EXPECT_EQ(end_of_answer(*tokenizer, form), "<|endoftext|>");
  EXPECT_EQ(end_of_answer(*tokenizer, text::ChatTemplate::parse(text::ChatTemplate::chatml(), "c")),
            "<|im_end|>");
  EXPECT_EQ(end_of_answer(*tokenizer, text::ChatTemplate::parse("{{ nope.x }}", "c")), "");
}

}  // namespace
}  // namespace tessera::fusion
