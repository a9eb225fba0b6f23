#include "text/tokenizer_added.h"

#include <algorithm>

#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

bool is_word_before(std::string_view text, std::size_t at) {
  return at != 0 && CharClasses::get().is(previous_char(text, at), CharClasses::kWord);
}

bool is_word_behind(std::string_view text, std::size_t at) {
  return at != text.size() && CharClasses::get().is(next_char(text, at), CharClasses::kWord);
}

std::size_t space_before(std::string_view text, std::size_t at, std::size_t lowest) {
  while (at > lowest) {
    std::size_t previous = at;
    if (!CharClasses::get().is(previous_char(text, previous), CharClasses::kSpace)) break;
    at = previous;
  }
  return at;
}

std::size_t space_behind(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    std::size_t next = at;
    if (!CharClasses::get().is(next_char(text, next), CharClasses::kSpace)) break;
    at = next;
  }
  return at;
}

}  // namespace

std::uint32_t StringMatcher::child(std::uint32_t node, unsigned char byte) const {
  std::uint32_t at = nodes_[node].first_child;
  while (at != kNone && nodes_[at].byte != byte) at = nodes_[at].next_sibling;
  return at;
}

void StringMatcher::add(std::string_view text, std::uint32_t value) {
  if (text.empty()) return;
  const auto new_node = [&](unsigned char byte) {
    nodes_.push_back(Node{kNone, kNone, kNone, byte});
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  };
  const auto first = static_cast<unsigned char>(text[0]);
  if (roots_[first] == kNone) roots_[first] = new_node(first);
  std::uint32_t node = roots_[first];
  for (const char c : text.substr(1)) {
    const auto byte = static_cast<unsigned char>(c);
    std::uint32_t next = child(node, byte);
    if (next == kNone) {
      next = new_node(byte);
      nodes_[next].next_sibling = nodes_[node].first_child;
      nodes_[node].first_child = next;
    }
    node = next;
  }
  nodes_[node].value = value;
}

std::optional<StringMatcher::Match> StringMatcher::find(std::string_view text,
                                                        std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    std::uint32_t node = roots_[static_cast<unsigned char>(text[begin])];
    std::optional<Match> longest;
    for (std::size_t at = begin + 1; node != kNone; ++at) {
      if (nodes_[node].value != kNone) longest = Match{begin, at, nodes_[node].value};
      if (at == text.size()) break;
      node = child(node, static_cast<unsigned char>(text[at]));
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

void AddedTokens::add(const std::vector<AddedToken>& tokens, const Bpe& bpe,
                      const Normalizer& normalizer) {
  const auto model_tokens = static_cast<std::uint32_t>(bpe.vocabulary().count());
  std::uint32_t next_id = std::max(model_tokens, end_id_);
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const auto known = id_of(token.content);
    if (known && entries_.at(*known).token == token) continue;
    const auto in_model = bpe.vocabulary().find(token.content);
    const std::uint32_t id = known ? *known : in_model ? *in_model : next_id++;
    ids_[token.content] = id;
    if (token.special) special_.insert(token.content);
    entries_[id] = {token, token.normalized ? normalizer(token.content) : token.content};
    end_id_ = std::max(end_id_, id + 1);
  }
  rebuild_matchers();
}

void AddedTokens::rebuild_matchers() {
  raw_ = normalized_ = StringMatcher();
  for (const auto& [id, entry] : entries_)
    (entry.token.normalized ? normalized_ : raw_).add(entry.text, id);
}

std::vector<AddedTokens::Segment> AddedTokens::split(std::string_view text, bool normalized,
                                                     bool parse_special) const {
  const StringMatcher& matcher = normalized ? normalized_ : raw_;
  std::vector<Segment> out;
  std::size_t covered = 0, spaces_end = 0;
  for (std::size_t from = 0; !matcher.empty();) {
    const auto match = matcher.find(text, from);
    if (!match) break;
    auto [begin, end, id] = *match;
    from = end;
    const AddedToken& token = entries_.at(id).token;
    if (!parse_special && is_special(token.content)) continue;
    if (token.single_word && (is_word_before(text, begin) || is_word_behind(text, end))) continue;
    if (token.lstrip)
      begin = std::max(space_before(text, begin, std::min(begin, covered)), covered);
    // A token of white space with rstrip may be found again in what it took: that run is not walked
    // twice.
    if (token.rstrip) end = spaces_end = end < spaces_end ? spaces_end : space_behind(text, end);
    if (covered < begin) out.push_back({covered, begin, std::nullopt});
    out.push_back({begin, end, id});
    covered = end;
  }
  if (covered != text.size()) out.push_back({covered, text.size(), std::nullopt});
  return out;
}

const AddedToken* AddedTokens::find(std::uint32_t id) const {
  const auto at = entries_.find(id);
  return at == entries_.end() ? nullptr : &at->second.token;
}

std::optional<std::uint32_t> AddedTokens::id_of(std::string_view content) const {
  const auto at = ids_.find(std::string(content));
  if (at == ids_.end()) return std::nullopt;
  return at->second;
}

}  // namespace tessera::text
