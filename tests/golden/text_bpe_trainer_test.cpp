// The merges of HF's trainer, found again (tests/golden/make_training.py).
#include "text/bpe_trainer.h"

#include <fstream>
#include <iterator>

#include "golden/fixture.h"
#include "text/tokenizer.h"

namespace tessera::text {
namespace {

std::string file(const std::string& name) {
  const auto path = std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/training" / name;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

void compare(const std::string& name) {
  const Config golden = Config::parse(file(name), name);
  BpeTrainer trainer({golden.integer("vocab_size"), golden.integer("min_frequency"),
                      golden.strings("special_tokens")});
  const std::string corpus = file("corpus.txt");
  trainer.add(corpus);
  const Config model = Config::parse(trainer.train(), "trained").at("model");
  const Config merges = golden.at("merges"), found = model.at("merges");
  ASSERT_EQ(found.size(), merges.size());
  for (std::size_t i = 0; i < merges.size(); ++i)
    ASSERT_EQ(found[i].dump(), merges[i].dump()) << "merge " << i;
  ASSERT_EQ(model.at("vocab").keys(), golden.strings("vocab"));
  for (std::size_t i = 0; i < golden.strings("vocab").size(); ++i)
    ASSERT_EQ(model.at("vocab")[i].as_integer(), static_cast<std::int64_t>(i));
}

TEST(BpeTrainer, FindsTheCommonMergesOfTheReference) { compare("bpe-common.json"); }

TEST(BpeTrainer, FindsAllMergesOfTheReference) { compare("bpe-all.json"); }

TEST(BpeTrainer, MakesATokenizer) {
  BpeTrainer trainer({.vocab_size = 400});
  const std::string corpus = file("corpus.txt");
  trainer.add(corpus);
  const Tokenizer tokenizer = Tokenizer::parse(trainer.train(), "trained");
  const auto ids = tokenizer.encode(corpus);
  EXPECT_LT(ids.size(), corpus.size() * 2 / 3);
  EXPECT_EQ(tokenizer.decode(ids), corpus);
  EXPECT_EQ(tokenizer.encode("<|endoftext|>", {.parse_special = true}),
            std::vector<std::int32_t>{0});
}

TEST(BpeTrainer, RefusesWhatMakesNoSense) {
  EXPECT_THROW(BpeTrainer({.vocab_size = 256}), ArgumentError);
  EXPECT_THROW(BpeTrainer({.vocab_size = 300}).train(), ArgumentError);
}

}  // namespace
}  // namespace tessera::text
