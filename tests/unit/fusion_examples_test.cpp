// Lists of examples: what is read, and what is said of lines that are wrong.
#include "fusion/examples.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "temporary_folder.h"

namespace tessera::fusion {
namespace {

class ExamplesTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path;

  Examples read(const std::string& lines) {
    std::ofstream(folder_ / "list.jsonl") << lines;
    return read_examples(folder_ / "list.jsonl");
  }
  std::string error(const std::string& lines) {
    try {
      read(lines);
    } catch (const FormatError& e) {
      return e.what();
    }
    return "";
  }
};

TEST_F(ExamplesTest, KeysTellTheKind) {
  std::ofstream(folder_ / "a.wav") << "x";
  EXPECT_EQ(read(R"({"text": "a"})").kind, ExampleKind::text);
  EXPECT_EQ(read(R"({"prompt": "a", "completion": "b"})").kind, ExampleKind::completion);
  EXPECT_EQ(read(R"({"audio": "a.wav", "text": "b"})").kind, ExampleKind::transcription);
  EXPECT_EQ(read(R"({"image": "a.wav", "text": "b"})").kind, ExampleKind::caption);
  EXPECT_EQ(read(R"({"image": "a.wav", "label": "b"})").kind, ExampleKind::classification);
  EXPECT_EQ(read(R"({"image": "a.wav", "audio": "a.wav", "text": "b"})").kind,
            ExampleKind::transcription);
  EXPECT_EQ(read(R"({"image": "a.wav", "audio": "a.wav", "task": "caption", "text": "b"})").kind,
            ExampleKind::caption);
  EXPECT_EQ(read(R"({"audio": "gone", "prediction": "a", "text": "b"})").kind,
            ExampleKind::prediction);
}

TEST_F(ExamplesTest, LinesBecomeExamples) {
  std::ofstream(folder_ / "a.jpg") << "x";
  const Examples e = read(
      "\n{\"image\": \"a.jpg\", \"text\": [\"one\", \"two\"], \"other\": 3}\r\n\n"
      "{\"image\": \"a.jpg\", \"text\": \"three\"}");
  ASSERT_EQ(e.list.size(), 2u);
  EXPECT_EQ(e.list[0].line, 2);
  EXPECT_EQ(e.list[0].image, folder_ / "a.jpg");
  EXPECT_EQ(e.list[0].texts, (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(e.list[1].line, 4);
  EXPECT_EQ(e.list[1].texts, std::vector<std::string>{"three"});
}

TEST_F(ExamplesTest, EveryTextMayHaveAPromptOfItsOwn) {
  const Examples e = read(R"({"prompt": ["a", ""], "completion": ["b", "c"]})");
  EXPECT_EQ(prompt_before(e.list[0], 0), "a");
  EXPECT_EQ(prompt_before(e.list[0], 1), "");
  const Examples one = read(R"({"prompt": "a", "completion": ["b", "c"]})");
  EXPECT_EQ(prompt_before(one.list[0], 1), "a");
  EXPECT_NE(error(R"({"prompt": ["a"], "completion": ["b", "c"]})").find("1 prompts for 2 texts"),
            std::string::npos);
}

TEST_F(ExamplesTest, TextsOfAllKindsMayBeMixed) {
  std::ofstream(folder_ / "a.wav") << "x";
  const std::string sound = R"({"audio": "a.wav", "text": "b"})",
                    image = R"({"image": "a.wav", "text": "b"})";
  const Examples e = read(sound + "\n" + image + "\n" + R"({"text": "a", "task": "prompt"})");
  EXPECT_TRUE(e.mixed);
  EXPECT_EQ(e.list[0].kind, ExampleKind::transcription);
  EXPECT_EQ(e.list[1].kind, ExampleKind::caption);
  EXPECT_EQ(e.list[2].kind, ExampleKind::text);
  EXPECT_EQ(e.list[2].task, "prompt");
  EXPECT_FALSE(read(sound + "\n" + sound).mixed);
  EXPECT_NE(error(sound + "\n" + R"({"image": "a.wav", "label": "b"})").find("another kind"),
            std::string::npos);
}

TEST_F(ExamplesTest, TablesNameTheirKeysFirst) {
  const auto table = [&](const char* name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return read_examples(folder_ / name);
  };
  const Examples e =
      table("a.csv", "text,label\r\n\"good, \"\"very\"\"\ngood\",yes\r\n\r\nbad\tor worse,no");
  EXPECT_EQ(e.kind, ExampleKind::classification);
  ASSERT_EQ(e.list.size(), 2u);
  EXPECT_EQ(e.list[0].texts.front(), "good, \"very\"\ngood");
  EXPECT_EQ(e.list[0].label, "yes");
  EXPECT_EQ(e.list[0].line, 2);
  EXPECT_EQ(e.list[1].texts.front(), "bad\tor worse");
  EXPECT_EQ(e.list[1].line, 5);
  EXPECT_EQ(table("a.tsv", "label\ttext\nx\ta,b\n").list[0].texts.front(), "a,b");
  const auto refusal = [&](const std::string& text) {
    try {
      table("b.csv", text);
    } catch (const FormatError& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_NE(refusal("text,label\na\n").find("b.csv:2: 1 fields"), std::string::npos);
  EXPECT_NE(refusal("text,label\na,\"b\n").find("b.csv:2: a quote is not closed"),
            std::string::npos);
  EXPECT_NE(refusal("what,ever\na,b\n").find("b.csv:2: not an example"), std::string::npos);
  EXPECT_NE(refusal("").find("has no examples"), std::string::npos);
}

TEST_F(ExamplesTest, LabelsMayBeNumbers) {
  const Examples e = read(R"({"prediction": "3", "label": 3})");
  EXPECT_EQ(e.list[0].label, "3");
  EXPECT_TRUE(e.list[0].label_is_index);
}

TEST_F(ExamplesTest, ErrorsNameTheLine) {
  EXPECT_NE(error("{\"text\": \"a\"}\n{\"text\": ").find("list.jsonl:2"), std::string::npos);
  EXPECT_NE(error("{\"text\": \"a\"}\n[1]").find("list.jsonl:2"), std::string::npos);
  EXPECT_NE(error("{\"text\": 3}").find("expected a string"), std::string::npos);
  EXPECT_NE(error("{\"text\": \" \"}").find("a text is empty"), std::string::npos);
  EXPECT_NE(error("{\"text\": []}").find("neither a text nor a label"), std::string::npos);
  EXPECT_NE(error("{\"image\": \"gone\", \"text\": \"a\"}").find("there is no file"),
            std::string::npos);
  EXPECT_NE(error("{\"prompt\": \"a\"}").find("not an example"), std::string::npos);
  EXPECT_NE(error("\n \n").find("has no examples"), std::string::npos);
  EXPECT_THROW(read_examples(folder_), IoError);
  EXPECT_THROW(read_examples(folder_ / "gone.jsonl"), IoError);
}

}  // namespace
}  // namespace tessera::fusion
