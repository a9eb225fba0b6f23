#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/config.h"
#include "text/tokenizer.h"

// What HF tokenizers make of many texts (tests/golden/make_tokenizer.py tells the format).
namespace tessera::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

const fs::path kData = TESSERA_SOURCE_DIR "/tests/data/tokenizer";

std::string text_of(const Config& entry) {
  if (entry.is_string()) return entry.as_string();
  std::string out;
  if (entry.has("hex")) {
    const std::string hex = entry.string("hex");
    for (std::size_t i = 0; i < hex.size(); i += 2)
      out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  } else {
    const Config repeat = entry.at("repeat");
    const std::string part = repeat[0].as_string();
    for (std::int64_t i = repeat[1].as_integer(); i > 0; --i) out += part;
  }
  return out;
}

std::vector<std::string> texts() {
  const Config list = Config::read(kData / "texts.json");
  std::vector<std::string> out;
  for (std::size_t i = 0; i < list.size(); ++i) out.push_back(text_of(list[i]));
  return out;
}

Ids ids_of(const Config& runs) {
  Ids out;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Config run = runs[i];
    if (run.is_array()) {
      out.insert(out.end(), static_cast<std::size_t>(run[1].as_integer()),
                 static_cast<std::int32_t>(run[0].as_integer()));
    } else {
      out.push_back(static_cast<std::int32_t>(run.as_integer()));
    }
  }
  return out;
}

/// The start of both at their first difference, instead of 10^5 numbers.
std::string difference(const Ids& actual, const Ids& expected) {
  std::size_t at = 0;
  while (at < actual.size() && at < expected.size() && actual[at] == expected[at]) ++at;
  std::string out = "at " + std::to_string(at) + ":";
  for (const Ids* ids : {&actual, &expected}) {
    out += ids == &actual ? " found" : ", expected";
    for (std::size_t i = at; i < std::min(ids->size(), at + 12); ++i)
      out += " " + std::to_string((*ids)[i]);
  }
  return out;
}

void check(const Tokenizer& tokenizer, const Config& golden) {
  const std::vector<std::string> all = texts();
  ASSERT_EQ(golden.size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string& text = all[i];
    SCOPED_TRACE("text " + std::to_string(i) + ": " + text.substr(0, 200));
    const Config entry = golden[i];
    const Ids plain = ids_of(entry.at("plain"));
    const Ids special = entry.has("special") ? ids_of(entry.at("special")) : plain;
    const Ids whole = entry.has("whole") ? ids_of(entry.at("whole")) : special;
    const Ids found = tokenizer.encode(text);
    EXPECT_TRUE(found == plain) << difference(found, plain);
    const Ids found_special = tokenizer.encode(text, {.parse_special = true});
    EXPECT_TRUE(found_special == special) << difference(found_special, special);
    const Ids found_whole =
        tokenizer.encode(text, {.add_special_tokens = true, .parse_special = true});
    EXPECT_TRUE(found_whole == whole) << difference(found_whole, whole);
    if (text.size() > 2000 || whole.empty()) continue;
    const std::string kept = entry.string("kept", text);
    EXPECT_EQ(tokenizer.decode(whole, {.skip_special_tokens = false}), kept);
    EXPECT_EQ(tokenizer.decode(whole), entry.string("skipped", kept));
  }
}

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsHuggingFace) {
  const fs::path folder = kData / GetParam();
  check(Tokenizer::open(folder), Config::read(folder / "golden.json"));
}

TEST_P(GoldenTokenizer, StreamsWhatDecodeGives) {
  const fs::path folder = kData / GetParam();
  const Tokenizer tokenizer = Tokenizer::open(folder);
  for (const std::string& text : texts()) {
    if (text.size() > 2000) continue;
    const Ids ids = tokenizer.encode(text, {.add_special_tokens = true, .parse_special = true});
    for (const bool skip : {false, true}) {
      for (const bool clean : {false, true}) {
        StreamDecoder stream(tokenizer, {skip, clean});
        std::string joined;
        for (const std::int32_t id : ids) {
          const std::string part = stream.push(id);
          EXPECT_TRUE(part.empty() || (part.front() & 0xC0) != 0x80) << "half a character";
          joined += part;
        }
        joined += stream.finish();
        EXPECT_EQ(joined, tokenizer.decode(ids, {skip, clean}));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer,
                         ::testing::Values("gpt2", "roberta", "llama3", "qwen2", "o200k",
                                           "mixed-scripts", "llama2", "gemma", "metaspace",
                                           "metaspace-whole", "clip", "whisper", "flags",
                                           "subwords", "words", "splits", "byte-normal"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name)
                             if (c == '-') c = '_';
                           return name;
                         });

TEST(GoldenTokenizerFiles, VocabAndMergesAreTheSameAsTokenizerJson) {
  const Tokenizer tokenizer = Tokenizer::open(kData / "gpt2-files");
  check(tokenizer, Config::read(kData / "gpt2" / "golden.json"));
  const auto end = tokenizer.id_of("<|endoftext|>");
  ASSERT_TRUE(end);
  EXPECT_EQ(tokenizer.special("eos_token"), end);
  EXPECT_EQ(tokenizer.special("pad_token"), end);
  EXPECT_EQ(tokenizer.special("mask_token"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(*end));
}

fs::path shared() {
  const char* named = std::getenv("TESSERA_SHARED");
  return named ? fs::path(named) : fs::path(TESSERA_SOURCE_DIR "/../shared");
}

TEST(RealTokenizer, WhisperTinyEn) {
  const fs::path folder = shared() / "models/whisper-tiny.en";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const Tokenizer tokenizer = Tokenizer::open(folder);
  EXPECT_EQ(tokenizer.vocab_size(), 51864);
  EXPECT_EQ(tokenizer.special("eos_token"), 50256);
  EXPECT_EQ(tokenizer.token(50257), "<|startoftranscript|>");
  check(tokenizer, Config::read(kData / "real-whisper-tiny.en.json"));
}

TEST(RealTokenizer, Gpt2VocabAndMerges) {
  const fs::path source = shared() / "tokenizers/gpt2-bpe";
  if (!fs::exists(source)) GTEST_SKIP() << source << " is not there";
  const fs::path folder = fs::path(::testing::TempDir()) / "tessera-real-gpt2";
  fs::create_directories(folder);
  fs::copy_file(source / "gpt2_vocab.json", folder / "vocab.json",
                fs::copy_options::overwrite_existing);
  fs::copy_file(source / "merges.txt", folder / "merges.txt", fs::copy_options::overwrite_existing);
  const Tokenizer tokenizer = Tokenizer::open(folder);
  EXPECT_EQ(tokenizer.vocab_size(), 50257);
  EXPECT_EQ(tokenizer.special("eos_token"), 50256);
  check(tokenizer, Config::read(kData / "real-gpt2.json"));
}

}  // namespace
}  // namespace tessera::text
