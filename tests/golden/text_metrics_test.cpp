// Expected numbers: jiwer 4.0.0 (wer, cer) and pycocoevalcap 1.2 (BleuScorer with the closest
// length, Rouge) on the same texts.
#include "text/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace tessera::text {
namespace {

struct Item {
  std::string hypothesis;
  std::vector<std::string> references;
};

const std::vector<Item> kItems = {
    {"a dog jumps over the red fence",
     {"a brown dog jumps over a fence", "the dog is leaping over the red fence", "dog jumping"}},
    {"two men play the guitar on a stage",
     {"two men are playing guitars on stage", "a band plays on a stage"}},
    {"snow", {"a skier goes down a hill in the snow"}},
    {"the the the the", {"the cat is on the mat", "there is a cat on the mat"}},
};

std::vector<Scored> corpus() {
  std::vector<Scored> scored;
  for (const Item& item : kItems) {
    scored.push_back({split_words(item.hypothesis), {}});
    for (const std::string& r : item.references) scored.back().references.push_back(split_words(r));
  }
  return scored;
}

TEST(Metrics, ErrorRatesAreThoseOfJiwer) {
  ErrorRate words, characters;
  for (const Item& item : kItems) {
    words.add(split_words(item.references[0]), split_words(item.hypothesis));
    characters.add(split_characters(item.references[0]), split_characters(item.hypothesis));
  }
  EXPECT_NEAR(words.rate(), 0.6551724137931034, 1e-15);
  EXPECT_NEAR(characters.rate(), 0.5447154471544715, 1e-15);
  ErrorRate code_points;
  code_points.add(split_characters("naïve café 日本語"), split_characters("naive cafe 日本"));
  EXPECT_NEAR(code_points.rate(), 0.21428571428571427, 1e-15);
}

TEST(Metrics, BleuIsThatOfTheReference) {
  const std::vector<double> expected = {0.4782211136685078, 0.39046590423534566, 0.3104203031340215,
                                        0.20897987245264066};
  const auto scores = bleu(corpus());
  ASSERT_EQ(scores.size(), expected.size());
  for (std::size_t n = 0; n < expected.size(); ++n) EXPECT_NEAR(scores[n], expected[n], 1e-12) << n;
}

TEST(Metrics, RougeLIsThatOfTheReference) {
  const std::vector<double> expected = {0.7142857142857143, 0.5398230088495575, 0.17478510028653294,
                                        0.3860759493670886};
  const auto scores = rouge_l(corpus());
  ASSERT_EQ(scores.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(scores[i], expected[i], 1e-12) << i;
}

TEST(Metrics, EmptyTextsHaveScores) {
  EXPECT_EQ(edit_distance({}, {"a", "b"}), 2);
  EXPECT_EQ(edit_distance({"a", "b"}, {}), 2);
  EXPECT_TRUE(std::isnan(ErrorRate{}.rate()));
  EXPECT_TRUE(split_words(" \t\n\u00A0").empty());
  EXPECT_EQ(rouge_l({{{}, {{"a"}}}}), std::vector<double>{0});
  EXPECT_LT(bleu({{{}, {{"a"}}}})[0], 1e-6);
  EXPECT_THROW(bleu({{{"a"}, {}}}), ArgumentError);
  EXPECT_THROW(rouge_l({{{"a"}, {}}}), ArgumentError);
}

}  // namespace
}  // namespace tessera::text
