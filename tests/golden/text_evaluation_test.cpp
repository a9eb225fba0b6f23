// What evaluation is made of, against the reference implementations (make_metrics.py).
#include <gtest/gtest.h>

#include "core/config.h"
#include "text/metrics.h"
#include "text/transcript_normalizer.h"

namespace tessera::text {
namespace {

Config golden() {
  return Config::read(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/metrics.json");
}

std::string joined(const Words& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

TEST(Evaluation, TranscriptsAreNormalisedAsWhispers) {
  EnglishNormalizer::Spellings spellings;
  const Config table = golden().at("spellings");
  for (const std::string& word : table.keys()) spellings[word] = table.string(word);
  const EnglishNormalizer english(spellings), plain;
  const Config cases = golden().at("normalize");
  ASSERT_GT(cases.size(), 90u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string text = cases[i].string("text");
    EXPECT_EQ(normalize_transcript(text), cases[i].string("basic")) << text;
    EXPECT_EQ(english(text), cases[i].string("english")) << text;
    EXPECT_EQ(plain(text), cases[i].string("plain")) << text;
  }
}

TEST(Evaluation, InvalidUtf8IsReplacedBeforeNormalising) {
  EXPECT_EQ(normalize_transcript("a\xff\xc3"), "a ");
  EXPECT_EQ(EnglishNormalizer()("\xe2\x82 one"), "one");
}

TEST(Evaluation, WordsAreThoseOfTheReferences) {
  const Config lines = golden().at("split_13a");
  for (std::size_t i = 0; i < lines.size(); ++i)
    EXPECT_EQ(joined(split_13a(lines[i].string("text"))), lines[i].string("words"));
  const Config captions = golden().at("split_caption");
  for (std::size_t i = 0; i < captions.size(); ++i)
    EXPECT_EQ(joined(split_caption(captions[i].string("text"))), captions[i].string("words"));
}

TEST(Evaluation, ScoresAreThoseOfTheReferences) {
  const Config cases = golden().at("scores");
  ASSERT_EQ(cases.size(), 3u);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const Config items = cases[i].at("items");
    std::vector<Scored> corpus;
    for (std::size_t j = 0; j < items.size(); ++j) {
      corpus.push_back({split_13a(items[j].string("hypothesis")), {}});
      for (const std::string& r : items[j].strings("references"))
        corpus.back().references.push_back(split_13a(r));
    }
    EXPECT_NEAR(translation_bleu(corpus), cases[i].number("bleu"), 1e-9) << i;
    const std::vector<double> expected = cases[i].numbers("cider_d"), got = cider_d(corpus);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t j = 0; j < got.size(); ++j) EXPECT_NEAR(got[j], expected[j], 1e-9) << i;
  }
}

TEST(Evaluation, ClassScoresAreThoseOfScikitLearn) {
  const Config classes = golden().at("classes");
  const auto truth = classes.strings("truth"), given = classes.strings("given");
  Confusion confusion;
  for (std::size_t i = 0; i < truth.size(); ++i) confusion.add(truth[i], given[i]);
  EXPECT_NEAR(confusion.accuracy(), classes.number("accuracy"), 1e-12);
  EXPECT_NEAR(confusion.macro_f1(), classes.number("macro_f1"), 1e-12);
  for (const std::string& name : confusion.classes())
    EXPECT_NEAR(confusion.f1(name), classes.at("f1").number(name), 1e-12) << name;
  EXPECT_EQ(confusion.total(), static_cast<std::int64_t>(truth.size()));
}

}  // namespace
}  // namespace tessera::text
