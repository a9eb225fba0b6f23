#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer_vocabulary.h"

namespace tessera::text {

struct BpeOptions {
  std::optional<std::string> unk_token;
  std::string prefix;  ///< continuing_subword_prefix: of every symbol but a word's first
  std::string suffix;  ///< end_of_word_suffix: of a word's last symbol
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

/// The merges of a byte pair encoding. Const and shared.
class Bpe {
 public:
  using Merges = std::vector<std::pair<std::string, std::string>>;
  /// Throws FormatError (naming `where`) for a merge of or into a token that is not in the
  /// vocabulary.
  Bpe(Vocabulary vocabulary, const Merges& merges, BpeOptions options, const std::string& where);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// Ids of one word. With byte_level the word is raw bytes, each of which stands for the character
  /// of byte_to_char(), without being written out as such.
  void encode(std::string_view word, bool byte_level, std::vector<std::int32_t>& out) const;

 private:
  struct Merge {
    std::uint64_t pair;
    std::uint32_t rank;
    std::uint32_t id;
  };
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  class Symbols;

  void add_merge(std::uint64_t pair, std::uint32_t rank, std::uint32_t id);
  const Merge* find_merge(std::uint32_t left, std::uint32_t right) const;
  std::vector<std::uint32_t> symbols_of(std::string_view word, bool byte_level) const;
  void merge_short(std::vector<std::uint32_t>& symbols) const;
  void merge_long(std::vector<std::uint32_t>& symbols) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::string where_;
  std::vector<Merge> merges_;                // a hash table; rank kNone: empty
  std::array<std::uint32_t, 256> byte_ids_;  // of the token "<0xNN>", or kNone
  std::array<std::uint32_t, 256>
      byte_level_ids_;  // of the token of that byte's character, or kNone
};

/// Encodes the words of one text, remembering what common words became.
class WordEncoder {
 public:
  WordEncoder(const Bpe& bpe, bool byte_level);
  void encode(std::string_view word, std::vector<std::int32_t>& out);

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t key_begin = 0, key_length = 0;  // length 0: empty
    std::uint32_t ids_begin = 0, ids_count = 0;
  };
  void grow();

  const Bpe& bpe_;
  bool byte_level_;
  std::vector<Entry> entries_;
  std::size_t used_ = 0;
  std::string keys_;
  std::vector<std::int32_t> ids_;
};

}  // namespace tessera::text
