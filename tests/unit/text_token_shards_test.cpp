// Tokens of text files, kept in files that are mapped.
#include "text/token_shards.h"

#include <fstream>

#include "core/error.h"
#include "golden/fixture.h"
#include "temporary_folder.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

class TokenShardsTest : public ::testing::Test {
 protected:
  testing::TemporaryFolder temporary_;
  const fs::path& folder_ = temporary_.path;
  Tokenizer tokenizer_ = Tokenizer::open(golden::Case("whisper-english").dir());

  fs::path write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  std::int64_t shards() const {
    return std::distance(fs::directory_iterator(folder_ / "shards"), {});
  }
};

TEST_F(TokenShardsTest, AreTheTokensOfAllTextsInOrder) {
  const std::vector<fs::path> files = {write("a", "a b a"), write("b", "c"), write("c", "b b")};
  std::vector<std::int32_t> expected;
  for (const char* text : {"a b a", "c", "b b"}) {
    const auto ids = tokenizer_.encode(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
    if (const auto end = tokenizer_.special("eos_token")) expected.push_back(*end);
  }
  for (const fs::path& kept : {fs::path(), folder_ / "shards"}) {
    const TokenShards shards(files, tokenizer_, kept);
    ASSERT_EQ(shards.size(), std::ssize(expected));
    for (std::int64_t begin = 0; begin <= shards.size(); ++begin) {
      for (std::int64_t count = 0; begin + count <= shards.size(); ++count) {
        const auto from = expected.begin() + begin;
        ASSERT_EQ(shards.read(begin, count), std::vector<std::int32_t>(from, from + count));
      }
    }
    EXPECT_THROW(shards.read(1, shards.size()), ArgumentError);
    EXPECT_THROW(shards.read(-1, 1), ArgumentError);
  }
  EXPECT_EQ(shards(), 3);
}

TEST_F(TokenShardsTest, AreMadeOnceForEachTextAndTokenizer) {
  const std::vector<fs::path> files = {write("a", "a b a")};
  const TokenShards first(files, tokenizer_, folder_ / "shards");
  const auto made = fs::directory_iterator(folder_ / "shards")->path();
  const auto time = fs::last_write_time(made);
  const TokenShards second(files, tokenizer_, folder_ / "shards");
  EXPECT_EQ(shards(), 1);
  EXPECT_EQ(fs::last_write_time(made), time);
  EXPECT_EQ(first.read(0, first.size()), second.read(0, second.size()));
  write("a", "a b a b");
  EXPECT_GT(TokenShards(files, tokenizer_, folder_ / "shards").size(), first.size());
  EXPECT_EQ(shards(), 2);
  const Tokenizer other = Tokenizer::open(golden::Case("whisper-128-mels").dir());
  const TokenShards others(files, other, folder_ / "shards");
  EXPECT_EQ(shards(), 3);
}

TEST_F(TokenShardsTest, SayWhatIsWrong) {
  EXPECT_THROW(TokenShards({folder_ / "gone"}, tokenizer_, {}), IoError);
  EXPECT_THROW(TokenShards({folder_}, tokenizer_, {}), IoError);
  EXPECT_THROW(TokenShards({write("empty", "")}, tokenizer_, {}), FormatError);
  EXPECT_THROW(TokenShards({write("a", "a")}, tokenizer_, {}, [] { return true; }), Error);
  const fs::path a = write("a", "a b");
  const TokenShards good({a}, tokenizer_, folder_ / "shards");
  std::ofstream(fs::directory_iterator(folder_ / "shards")->path()) << "damaged";
  EXPECT_THROW(TokenShards({a}, tokenizer_, folder_ / "shards"), FormatError);
}

}  // namespace
}  // namespace tessera::text
