#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

const fs::path kData = TESSERA_SOURCE_DIR "/tests/data/tokenizer";

/// A tokenizer of a few letters, with more top-level members (which begin with a comma).
std::string letters(const std::string& more = "", const std::string& model = "") {
  return R"({"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"ab":3,"abc":4,"<s>":5},)"
         R"("merges":[["a","b"],["ab","c"]])" +
         model + "}" + more + "}";
}

template <class E>
void expect_error(const std::string& json, const std::string& named) {
  try {
    Tokenizer::parse(json, "here.json");
    ADD_FAILURE() << "no error for " << json.substr(0, 200);
  } catch (const E& e) {
    EXPECT_NE(std::string(e.what()).find(named), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("here.json"), std::string::npos) << e.what();
  }
}

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer t = Tokenizer::parse(letters(), "here.json");
  EXPECT_EQ(t.encode("abcab"), (Ids{4, 3}));
  EXPECT_EQ(t.encode("xbc"), (Ids{1, 2}));  // without unk_token, what is unknown is left out
  EXPECT_EQ(t.encode(""), Ids{});
  EXPECT_EQ(t.vocab_size(), 6);
  EXPECT_EQ(t.id_of("abc"), 4);
  EXPECT_EQ(t.id_of("x"), std::nullopt);
  EXPECT_EQ(t.token(3), "ab");
  EXPECT_EQ(t.token(6), "");
  EXPECT_EQ(t.token(-1), "");
}

TEST(Tokenizer, SpecialTokensInUserTextAreText) {
  const Tokenizer t = Tokenizer::parse(
      letters(
          R"(,"added_tokens":[{"id":5,"content":"<s>","special":true,"single_word":false,"lstrip":false,)"
          R"("rstrip":false,"normalized":false},{"id":6,"content":"ca","special":false,"single_word":false,)"
          R"("lstrip":false,"rstrip":false,"normalized":false}])"),
      "here.json");
  EXPECT_EQ(t.encode("a<s>b"), (Ids{3}));
  EXPECT_EQ(t.encode("a<s>b", {.parse_special = true}), (Ids{0, 5, 1}));
  EXPECT_EQ(t.encode("bca"), (Ids{1, 6}));  // an added token that is not special still counts
  EXPECT_TRUE(t.is_special(5));
  EXPECT_FALSE(t.is_special(6));
  EXPECT_EQ(t.decode(Ids{0, 5, 1, 99, -3}), "a b");
  EXPECT_EQ(t.decode(Ids{0, 5, 1}, {.skip_special_tokens = false}), "a <s> b");
}

TEST(Tokenizer, UnknownComponentsAreNamed) {
  expect_error<UnsupportedError>(letters(R"(,"normalizer":{"type":"Precompiled"})"), "Precompiled");
  expect_error<UnsupportedError>(letters(R"(,"pre_tokenizer":{"type":"UnicodeScripts"})"),
                                 "UnicodeScripts");
  expect_error<UnsupportedError>(letters(R"(,"post_processor":{"type":"Odd"})"), "Odd");
  expect_error<UnsupportedError>(letters(R"(,"decoder":{"type":"CTC"})"), "CTC");
  expect_error<UnsupportedError>(R"({"model":{"type":"Unigram","vocab":[["a",0.5]]}})", "Unigram");
  expect_error<UnsupportedError>(R"({"model":{"type":"WordPiece","vocab":{"a":0}}})", "WordPiece");
}

TEST(Tokenizer, MalformedFilesAreFormatErrors) {
  expect_error<FormatError>("", "JSON");
  expect_error<FormatError>("[]", "object");
  expect_error<FormatError>("{}", "model");
  expect_error<FormatError>(letters().substr(0, 80), "JSON");
  expect_error<FormatError>(std::string(100000, '['), "deep");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0}}})", "merges");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})", "id");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":4000000000},"merges":[]}})",
                            "4000000000");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":{}},"merges":[]}})", "object");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a x"]}})", "'x'");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}})", "'aa'");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["aa"]}})",
                            "one space");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}})",
                            "two tokens");
  expect_error<FormatError>(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]}})",
                            "two tokens");
  expect_error<FormatError>(letters("", R"(,"byte_fallback":"yes")"), "byte_fallback");
  expect_error<FormatError>(
      letters(R"(,"normalizer":{"type":"Replace","pattern":{"Regex":"(a"},"content":""})"), "(a");
  expect_error<FormatError>(letters(R"(,"pre_tokenizer":{"type":"Metaspace","replacement":"ab"})"),
                            "one character");
  expect_error<FormatError>(
      letters(
          R"(,"pre_tokenizer":{"type":"Split","pattern":{"String":"a"},"invert":false,"behavior":"X"})"),
      "'X'");
  expect_error<FormatError>(
      letters(
          R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{}})"),
      "'x'");
  std::string nested = R"({"type":"NFC"})";
  for (int i = 0; i < 100; ++i) nested = R"({"type":"Sequence","normalizers":[)" + nested + "]}";
  expect_error<FormatError>(letters(",\"normalizer\":" + nested), "deep");
}

TEST(Tokenizer, MissingFilesAreNamed) {
  EXPECT_THROW(Tokenizer::open(kData / "no-such-folder"), IoError);
  EXPECT_THROW(Tokenizer::open(kData), IoError);
}

TEST(Tokenizer, APatternThatNeverEndsIsAnError) {
  const Tokenizer t = Tokenizer::parse(
      letters(R"(,"normalizer":{"type":"Replace","pattern":{"Regex":"(x+x+)+y"},"content":""})"),
      "here.json");
  EXPECT_THROW(t.encode(std::string(60, 'x')), FormatError);
}

TEST(Tokenizer, RolesFromBothConfigFiles) {
  const fs::path folder = fs::path(::testing::TempDir()) / "tessera-tokenizer-roles";
  fs::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << letters();
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"bos_token":"<s>","eos_token":{"content":"<end>","lstrip":false},"pad_token":null,)"
      << R"("added_tokens_decoder":{"10":{"content":"<x>","special":true},"9":{"content":"<y>","special":false}}})";
  std::ofstream(folder / "special_tokens_map.json") << R"({"bos_token":"a","unk_token":"b"})";
  const Tokenizer t = Tokenizer::open(folder);
  EXPECT_EQ(t.special("bos_token"), 5);
  EXPECT_EQ(t.special("unk_token"), 1);
  EXPECT_EQ(t.special("pad_token"), std::nullopt);
  EXPECT_EQ(t.id_of("<y>"), 6);
  EXPECT_EQ(t.id_of("<x>"), 7);
  EXPECT_EQ(t.special("eos_token"), 8);
  EXPECT_TRUE(t.is_special(5));
  EXPECT_FALSE(t.is_special(6));
  EXPECT_EQ(t.encode("a<end>", {.parse_special = true}), (Ids{0, 8}));
}

// What is quadratic in the length of a word takes many minutes here.
TEST(Tokenizer, MegabytesOfOneWordAreEncodedSoon) {
  for (const char* name : {"gpt2", "llama2", "flags", "clip"}) {
    const Tokenizer t = Tokenizer::open(kData / name);
    for (const std::string one : {"a", " ", "\n", "th", "\xCC\x81\xCC\xA3"}) {
      std::string text;
      while (text.size() < 1 << 20) text += one;
      Ids ids;
      EXPECT_LT(seconds([&] { ids = t.encode(text); }), 20) << name << ", 1 MB of '" << one << "'";
      if (std::string(name) == "gpt2") {
        EXPECT_TRUE(t.decode(ids) == text);
      }
    }
  }
}

TEST(Tokenizer, ThreadsMayShareOne) {
  const Tokenizer t = Tokenizer::open(kData / "llama3");
  const std::string text =
      "The quick brown fox and the lazy dog, 1234 times; \xE4\xBD\xA0\xE5\xA5\xBD.";
  const Ids expected = t.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> same(4, 0);
  for (int& result : same)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        result += t.encode(text) == expected && t.decode(expected) == text;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, (std::vector<int>(4, 200)));
}

TEST(StreamDecoder, HoldsBackHalfACharacter) {
  const Tokenizer t = Tokenizer::open(kData / "gpt2");
  const std::string bytes[] = {"\xC3\xB0", "\xC5\x81", "\xC4\xBA", "\xC4\xA2"};  // of F0 9F 98 80
  StreamDecoder stream(t);
  std::string out;
  for (const std::string& byte : bytes) {
    const auto id = t.id_of(byte);
    ASSERT_TRUE(id);
    EXPECT_EQ(out, "");
    out += stream.push(*id);
  }
  EXPECT_EQ(out, "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, AnIncompleteCharacterAtTheEndIsReplaced) {
  const Tokenizer t = Tokenizer::open(kData / "gpt2");
  StreamDecoder stream(t);
  const auto lead = t.id_of("\xC3\xA2");  // stands for E2
  ASSERT_TRUE(lead);
  EXPECT_EQ(stream.push(*lead), "");
  EXPECT_EQ(stream.push(*t.id_of("a")),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(stream.push(*lead), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(StreamDecoder, CleansUpSpacesAcrossTokens) {
  const Tokenizer t = Tokenizer::open(kData / "gpt2");
  const Ids ids = t.encode("we do n't know , it 's late . a ' b");
  EXPECT_EQ(t.decode(ids, {.clean_up_spaces = true}), "we don't know, it's late. a'b");
}

}  // namespace
}  // namespace tessera::text
