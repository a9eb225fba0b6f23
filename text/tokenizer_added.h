#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/tokenizer_bpe.h"
#include "text/tokenizer_normalizer.h"

namespace tessera::text {

struct AddedToken {
  std::string content;
  bool single_word = false;  ///< not beside a word character
  bool lstrip = false;       ///< takes the white space before it, too
  bool rstrip = false;       ///< and behind it
  bool normalized = true;    ///< matches the normalized text, by its own normalized form
  bool special = false;

  bool operator==(const AddedToken&) const = default;
};

/// Finds the longest of some strings at each place of a text.
class StringMatcher {
 public:
  StringMatcher() { roots_.fill(kNone); }
  void add(std::string_view text, std::uint32_t value);
  bool empty() const { return nodes_.empty(); }
  struct Match {
    std::size_t begin;
    std::size_t end;
    std::uint32_t value;
  };
  /// The leftmost match at or behind `from`, of those the longest.
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Node {
    std::uint32_t first_child = kNone;
    std::uint32_t next_sibling = kNone;
    std::uint32_t value = kNone;
    unsigned char byte = 0;
  };
  std::uint32_t child(std::uint32_t node, unsigned char byte) const;
  std::vector<Node> nodes_;
  std::array<std::uint32_t, 256> roots_;  // the nodes of first bytes
};

/// The tokens that are found in the text before the model sees it.
class AddedTokens {
 public:
  /// Adds tokens as HF does: with the model's id where the model knows it, else with the next free
  /// one.
  void add(const std::vector<AddedToken>& tokens, const Bpe& bpe, const Normalizer& normalizer);

  struct Segment {
    std::size_t begin;
    std::size_t end;
    std::optional<std::uint32_t> id;  ///< none: ordinary text
  };
  /// The text in order; first all tokens that are not `normalized`, then in normalized text the
  /// others.
  std::vector<Segment> split(std::string_view text, bool normalized, bool parse_special) const;

  std::optional<std::uint32_t> id_of(std::string_view content) const;
  /// The token with this id, or null.
  const AddedToken* find(std::uint32_t id) const;
  /// What the decoder gets for this added token: its normalized form, if it is to be normalized.
  const std::string& decoder_text(std::uint32_t id) const { return entries_.at(id).text; }
  /// Is this the content of a special token?
  bool is_special(const std::string& content) const { return special_.count(content) != 0; }
  std::uint32_t end_id() const { return end_id_; }  ///< largest id + 1

 private:
  struct Entry {
    AddedToken token;
    std::string text;  // normalized, if it is to be
  };
  void rebuild_matchers();

  std::unordered_map<std::uint32_t, Entry> entries_;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::unordered_set<std::string> special_;
  StringMatcher raw_;
  StringMatcher normalized_;
  std::uint32_t end_id_ = 0;
};

}  // namespace tessera::text
