#include "text/stop_filter.h"

#include <gtest/gtest.h>

namespace tessera::text {
namespace {

/// All that a filter lets through when it gets the pieces one after the other.
std::string through(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopFilter filter(stops);
  std::string out;
  for (const std::string& piece : pieces) out += filter.push(piece);
  return out + filter.finish();
}

TEST(StopFilter, HoldsBackWhatMayBeginAStopString) {
  StopFilter filter({"###", "\nQ:"});
  EXPECT_EQ(filter.push("a #"), "a ");
  EXPECT_EQ(filter.push("#"), "");
  EXPECT_EQ(filter.push("b\n"), "##b");
  EXPECT_EQ(filter.push("Q"), "");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.push("? #"), "\nQ? ");
  EXPECT_EQ(filter.push("##x"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, HeldTextIsGivenBackAtTheEnd) {
  StopFilter filter({"stop"});
  EXPECT_EQ(filter.push("nonst"), "non");
  EXPECT_EQ(filter.push("o"), "");
  EXPECT_EQ(filter.finish(), "sto");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopFilter, TheStringCompleteFirstCounts) {
  EXPECT_EQ(through({"abcd", "bc"}, {"xabcd"}), "xa");
  EXPECT_EQ(through({"bc", "abc"}, {"xabcd"}), "x") << "both end there: the longest";
  EXPECT_EQ(through({"aab"}, {"a", "a", "a", "b", "c"}), "a")
      << "it may begin within its beginning";
}

TEST(StopFilter, PiecesDoNotMatter) {
  const std::vector<std::string> texts = {"abababca", "aaaaaaab", "cabcabab", "bbbb"};
  const std::vector<std::vector<std::string>> stops = {
      {"abc"}, {"ab", "abab"}, {"aab", "b"}, {"ca", "abca"}, {"ababc", "bab"}, {}};
  for (const std::string& text : texts) {
    for (const auto& stop : stops) {
      const std::string whole = through(stop, {text});
      for (unsigned cuts = 0; cuts < 1u << (text.size() - 1); ++cuts) {
        std::vector<std::string> pieces(1);
        for (std::size_t i = 0; i < text.size(); ++i) {
          pieces.back() += text[i];
          if (cuts >> i & 1) pieces.emplace_back();
        }
        ASSERT_EQ(through(stop, pieces), whole) << text << " cut " << cuts;
      }
    }
  }
}

}  // namespace
}  // namespace tessera::text
