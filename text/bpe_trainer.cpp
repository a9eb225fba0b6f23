#include "text/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "text/tokenizer_unicode.h"
#include "text/tokenizer_vocabulary.h"
#include "text/tokenizer_words.h"

namespace tessera::text {
namespace {

using Json = nlohmann::ordered_json;
using Id = std::uint32_t;
using Pair = std::pair<Id, Id>;

struct PairHash {
  std::size_t operator()(const Pair& p) const {
    return mix_hash(static_cast<std::uint64_t>(p.first) << 32 | p.second);
  }
};

struct Word {
  std::vector<Id> symbols;
  std::int64_t count;
};

/// A pair to merge, as often as it was seen when it was put in line, and the words that have it.
/// First in line: the most frequent; of equals, the one of the smallest ids.
struct Candidate {
  Pair pair;
  std::int64_t count;
  std::vector<std::uint32_t> words;
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : other.pair < pair;
  }
};

/// Tokens, merges, and the words as far as they are merged.
class Merging {
 public:
  Merging(const BpeTrainerOptions& options,
          const std::map<std::string, std::int64_t, std::less<>>& words);
  void run(const std::function<void(std::int64_t, std::int64_t)>& progress);
  Json model() const;
  Id id_of(const std::string& token) const { return ids_.at(token); }

 private:
  using Changed = std::unordered_map<Pair, std::vector<std::uint32_t>, PairHash>;
  Id add(const std::string& token);
  void merge_word(std::uint32_t at, const Pair& pair, Id merged, Changed& grown);
  void put_in_line(Changed& grown);

  const BpeTrainerOptions& options_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, Id> ids_;
  std::vector<Word> words_;
  std::unordered_map<Pair, std::int64_t, PairHash> counts_;
  std::priority_queue<Candidate> line_;
  std::vector<Pair> merges_;
};

Merging::Merging(const BpeTrainerOptions& options,
                 const std::map<std::string, std::int64_t, std::less<>>& words)
    : options_(options) {
  for (const std::string& token : options.special_tokens) add(token);
  std::array<unsigned char, 256> bytes{};
  for (std::size_t i = 0; i < 256; ++i) bytes[i] = static_cast<unsigned char>(i);
  std::ranges::sort(bytes, {}, byte_to_char);
  std::array<Id, 256> byte_ids{};
  for (const unsigned char b : bytes)
    byte_ids[b] = add(byte_level(std::string_view(reinterpret_cast<const char*>(&b), 1)));
  Changed all;
  for (const auto& [text, count] : words) {
    const auto at = static_cast<std::uint32_t>(words_.size());
    Word word{{}, count};
    for (const char c : text) word.symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
    for (std::size_t i = 0; i + 1 < word.symbols.size(); ++i) {
      const Pair pair{word.symbols[i], word.symbols[i + 1]};
      counts_[pair] += count;
      std::vector<std::uint32_t>& where = all[pair];
      if (where.empty() || where.back() != at) where.push_back(at);
    }
    words_.push_back(std::move(word));
  }
  put_in_line(all);
}

Id Merging::add(const std::string& token) {
  const auto [found, is_new] = ids_.emplace(token, static_cast<Id>(tokens_.size()));
  if (is_new) tokens_.push_back(token);
  return found->second;
}

void Merging::put_in_line(Changed& grown) {
  for (auto& [pair, where] : grown) {
    if (const std::int64_t count = counts_[pair]; count > 0)
      line_.push({pair, count, std::move(where)});
  }
}

/// Every `pair` of a word becomes `merged`; what that does to the counts of its neighbours' pairs.
void Merging::merge_word(std::uint32_t at, const Pair& pair, Id merged, Changed& grown) {
  Word& word = words_[at];
  std::vector<Id>& s = word.symbols;
  const auto gain = [&](const Pair& p) {
    counts_[p] += word.count;
    std::vector<std::uint32_t>& where = grown[p];
    if (where.empty() || where.back() != at) where.push_back(at);
  };
  std::size_t to = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (i + 1 == s.size() || s[i] != pair.first || s[i + 1] != pair.second) {
      s[to++] = s[i];
      continue;
    }
    if (to > 0) {
      counts_[{s[to - 1], pair.first}] -= word.count;
      gain({s[to - 1], merged});
    }
    if (i + 2 < s.size()) {
      counts_[{pair.second, s[i + 2]}] -= word.count;
      gain({merged, s[i + 2]});
    }
    s[to++] = merged;
    ++i;
  }
  s.resize(to);
}

void Merging::run(const std::function<void(std::int64_t, std::int64_t)>& progress) {
  while (static_cast<std::int64_t>(tokens_.size()) < options_.vocab_size && !line_.empty()) {
    Candidate top = line_.top();
    line_.pop();
    if (const std::int64_t now = counts_[top.pair]; now != top.count) {  // others took some
      top.count = now;
      line_.push(std::move(top));
      continue;
    }
    if (top.count < std::max<std::int64_t>(1, options_.min_frequency)) break;
    const Id merged = add(tokens_[top.pair.first] + tokens_[top.pair.second]);
    merges_.push_back(top.pair);
    Changed grown;
    for (const std::uint32_t at : top.words) merge_word(at, top.pair, merged, grown);
    put_in_line(grown);
    if (progress) progress(static_cast<std::int64_t>(tokens_.size()), options_.vocab_size);
  }
}

Json Merging::model() const {
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false},
                {"vocab", Json::object()},
                {"merges", Json::array()}};
  Json::object_t vocab;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    // straight to the end: the object would look for the key first, in a list
    static_cast<std::vector<std::pair<const std::string, Json>>&>(vocab).emplace_back(tokens_[i],
                                                                                      i);
  }
  model["vocab"] = std::move(vocab);
  for (const auto& [left, right] : merges_)
    model["merges"].push_back({tokens_[left], tokens_[right]});
  return model;
}

Json byte_level_step(bool add_prefix_space) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", true}};
}

}  // namespace

BpeTrainer::BpeTrainer(BpeTrainerOptions options) : options_(std::move(options)) {
  const auto least = static_cast<std::int64_t>(256 + options_.special_tokens.size());
  constexpr std::int64_t kMost = 1 << 22;
  if (options_.vocab_size < least || options_.vocab_size > kMost) {
    throw ArgumentError(concat("a vocabulary of ", options_.vocab_size, " tokens; expected ", least,
                               " (special tokens and single bytes) to ", kMost));
  }
}

void BpeTrainer::add(std::string_view text) {
  std::string repaired;
  if (valid_utf8_prefix(text) != text.size()) text = repaired = replace_invalid_utf8(text);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    const std::string_view line = text.substr(0, end);
    for (const TextPart& part : gpt2_words(line)) {
      const std::string_view word = line.substr(part.begin, part.end - part.begin);
      if (const auto found = words_.find(word); found != words_.end()) {
        ++found->second;
      } else {
        words_.emplace(word, 1);
      }
    }
    text.remove_prefix(end);
  }
}

std::string BpeTrainer::train(
    const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  if (words_.empty()) throw ArgumentError("there is no text to learn a tokenizer from");
  Merging merging(options_, words_);
  merging.run(progress);
  Json added = Json::array();
  for (const std::string& token : options_.special_tokens) {
    added.push_back({{"id", merging.id_of(token)},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json all = {{"version", "1.0"},          {"truncation", nullptr},
                    {"padding", nullptr},        {"added_tokens", std::move(added)},
                    {"normalizer", nullptr},     {"pre_tokenizer", byte_level_step(false)},
                    {"post_processor", nullptr}, {"decoder", byte_level_step(true)},
                    {"model", merging.model()}};
  return all.dump(2) + "\n";
}

}  // namespace tessera::text
