#include "text/tokenizer_bpe.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <queue>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

constexpr std::size_t kShortWord = 48;  // up to here, looking at all pairs again beats a heap

std::uint64_t pair_of(std::uint32_t left, std::uint32_t right) {
  return std::uint64_t{left} << 32 | right;
}

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, const Merges& merges, BpeOptions options, const std::string& where)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)), where_(where) {
  merges_.resize(std::bit_ceil(2 * merges.size() + 16), Merge{0, kNone, 0});
  const auto id_of = [&](std::string_view token, std::size_t rank) {
    const auto id = vocabulary_.find(token);
    if (!id)
      throw FormatError(
          concat(where_, ": merge ", rank, ": token '", token, "' is not in the vocabulary"));
    return *id;
  };
  std::string merged;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::uint32_t left_id = id_of(left, rank), right_id = id_of(right, rank);
    if (right.size() < options_.prefix.size())
      throw FormatError(concat(where_, ": merge ", rank, ": '", right,
                               "' is shorter than continuing_subword_prefix"));
    merged.assign(left).append(right, options_.prefix.size());
    add_merge(pair_of(left_id, right_id), static_cast<std::uint32_t>(rank), id_of(merged, rank));
  }
  for (unsigned b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    byte_ids_[b] = vocabulary_.find(name).value_or(kNone);
    std::string character;
    append_char(character, byte_to_char(static_cast<unsigned char>(b)));
    byte_level_ids_[b] = vocabulary_.find(character).value_or(kNone);
  }
}

void Bpe::add_merge(std::uint64_t pair, std::uint32_t rank, std::uint32_t id) {
  const std::size_t mask = merges_.size() - 1;
  std::size_t slot = mix_hash(pair) & mask;
  while (merges_[slot].rank != kNone && merges_[slot].pair != pair) slot = (slot + 1) & mask;
  merges_[slot] = {pair, rank, id};  // of merges listed twice, the last one counts
}

const Bpe::Merge* Bpe::find_merge(std::uint32_t left, std::uint32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t slot = mix_hash(pair) & mask; merges_[slot].rank != kNone;
       slot = (slot + 1) & mask)
    if (merges_[slot].pair == pair) return &merges_[slot];
  return nullptr;
}

/// A word's first symbols: its characters, with prefix and suffix, or what stands for those
/// unknown.
class Bpe::Symbols {
 public:
  Symbols(const Bpe& bpe, std::vector<std::uint32_t>& out) : bpe_(bpe), out_(out) {}

  void known(std::uint32_t id) {
    flush_unknown();
    out_.push_back(id);
  }
  void add(std::string_view symbol) {
    if (const auto id = bpe_.vocabulary_.find(symbol)) return known(*id);
    // The bytes go before an unknown symbol that is still held back: a quirk of the reference.
    if (bpe_.options_.byte_fallback && add_bytes(symbol)) return;
    if (!bpe_.options_.unk_token) return;
    if (unknown_ != kNone && bpe_.options_.fuse_unk) return;
    flush_unknown();
    const auto id = bpe_.vocabulary_.find(*bpe_.options_.unk_token);
    if (!id)
      throw FormatError(concat(bpe_.where_, ": '", symbol,
                               "' is not in the vocabulary, and neither is unk_token '",
                               *bpe_.options_.unk_token, "'"));
    unknown_ = *id;
  }
  void flush_unknown() {
    if (unknown_ != kNone) out_.push_back(unknown_);
    unknown_ = kNone;
  }

 private:
  bool add_bytes(std::string_view symbol) {
    const auto id = [&](char c) { return bpe_.byte_ids_[static_cast<unsigned char>(c)]; };
    if (std::any_of(symbol.begin(), symbol.end(), [&](char c) { return id(c) == kNone; }))
      return false;
    for (const char c : symbol) out_.push_back(id(c));
    return true;
  }
  const Bpe& bpe_;
  std::vector<std::uint32_t>& out_;
  std::uint32_t unknown_ = kNone;
};

std::vector<std::uint32_t> Bpe::symbols_of(std::string_view word, bool byte_level) const {
  std::vector<std::uint32_t> out;
  out.reserve(word.size());
  Symbols symbols(*this, out);
  std::string symbol;
  for (std::size_t at = 0; at < word.size();) {
    const auto lead = static_cast<unsigned char>(word[at]);
    const std::size_t length = byte_level ? 1 : char_length(lead);
    const bool with_prefix = at != 0 && !options_.prefix.empty();
    const bool with_suffix = at + length == word.size() && !options_.suffix.empty();
    if (byte_level && !with_prefix && !with_suffix && byte_level_ids_[lead] != kNone) {
      symbols.known(byte_level_ids_[lead]);
    } else {
      symbol.clear();
      if (with_prefix) symbol += options_.prefix;
      if (byte_level) {
        append_char(symbol, byte_to_char(lead));
      } else {
        symbol.append(word, at, length);
      }
      if (with_suffix) symbol += options_.suffix;
      symbols.add(symbol);
    }
    at += length;
  }
  symbols.flush_unknown();
  return out;
}

void Bpe::encode(std::string_view word, bool byte_level, std::vector<std::int32_t>& out) const {
  if (options_.ignore_merges) {
    const auto id = byte_level ? vocabulary_.find(text::byte_level(word)) : vocabulary_.find(word);
    if (id) return out.push_back(static_cast<std::int32_t>(*id));
  }
  std::vector<std::uint32_t> symbols = symbols_of(word, byte_level);
  if (symbols.size() <= kShortWord) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
  out.insert(out.end(), symbols.begin(), symbols.end());
}

void Bpe::merge_short(std::vector<std::uint32_t>& symbols) const {
  std::array<const Merge*, kShortWord> merges;  // of each symbol with the next one, or null
  std::size_t count = symbols.size();
  if (count < 2) return;
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find_merge(symbols[i], symbols[i + 1]);
  for (;;) {
    std::size_t best = count;
    std::uint32_t best_rank = kNone;
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (merges[i] && merges[i]->rank < best_rank) best_rank = merges[i]->rank, best = i;
    if (best == count) break;
    symbols[best] = merges[best]->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    std::copy(merges.begin() + best + 1, merges.begin() + count, merges.begin() + best);
    if (best > 0) merges[best - 1] = find_merge(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find_merge(symbols[best], symbols[best + 1]);
  }
}

void Bpe::merge_long(std::vector<std::uint32_t>& symbols) const {
  struct Node {
    std::uint32_t previous, next, id;  // id kNone: merged into the one before
  };
  struct Candidate {
    std::uint32_t rank, position, id;
    bool operator<(const Candidate& other) const {  // of two, the heap's top is the greater
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<std::uint32_t>(symbols.size());
  std::vector<Node> nodes(count);
  for (std::uint32_t i = 0; i < count; ++i)
    nodes[i] = {i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1, symbols[i]};
  std::vector<Candidate> first;
  for (std::uint32_t i = 0; i + 1 < count; ++i)
    if (const Merge* m = find_merge(symbols[i], symbols[i + 1]))
      first.push_back({m->rank, i, m->id});
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));

  const auto offer = [&](std::uint32_t position) {
    const Node& node = nodes[position];
    if (const Merge* m = find_merge(node.id, nodes[node.next].id))
      queue.push({m->rank, position, m->id});
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& left = nodes[top.position];
    if (left.id == kNone || left.next == kNone) continue;
    Node& right = nodes[left.next];
    const Merge* m = find_merge(left.id, right.id);
    if (!m || m->id != top.id) continue;  // outdated
    left.id = top.id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) nodes[left.next].previous = top.position;
    if (left.previous != kNone) offer(left.previous);
    if (left.next != kNone) offer(top.position);
  }
  symbols.clear();
  for (const Node& node : nodes)
    if (node.id != kNone) symbols.push_back(node.id);
}

WordEncoder::WordEncoder(const Bpe& bpe, bool byte_level)
    : bpe_(bpe), byte_level_(byte_level), entries_(64) {}

void WordEncoder::grow() {
  std::vector<Entry> old(4 * entries_.size());
  old.swap(entries_);
  const std::size_t mask = entries_.size() - 1;
  for (const Entry& entry : old) {
    if (entry.key_length == 0) continue;
    std::size_t slot = entry.hash & mask;
    while (entries_[slot].key_length != 0) slot = (slot + 1) & mask;
    entries_[slot] = entry;
  }
}

void WordEncoder::encode(std::string_view word, std::vector<std::int32_t>& out) {
  constexpr std::size_t kLongestRemembered = 64, kMostRemembered = 1 << 17;
  if (word.empty()) return;
  if (word.size() > kLongestRemembered) return bpe_.encode(word, byte_level_, out);
  const std::uint64_t hash = hash_bytes(word);
  const std::size_t mask = entries_.size() - 1;
  std::size_t slot = hash & mask;
  for (; entries_[slot].key_length != 0; slot = (slot + 1) & mask) {
    const Entry& entry = entries_[slot];
    if (entry.hash == hash &&
        std::string_view(keys_).substr(entry.key_begin, entry.key_length) == word) {
      const auto ids = ids_.begin() + entry.ids_begin;
      out.insert(out.end(), ids, ids + entry.ids_count);
      return;
    }
  }
  const std::size_t before = out.size();
  bpe_.encode(word, byte_level_, out);
  if (used_ == kMostRemembered) return;
  entries_[slot] = {
      hash, static_cast<std::uint32_t>(keys_.size()), static_cast<std::uint32_t>(word.size()),
      static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(out.size() - before)};
  keys_.append(word);
  ids_.insert(ids_.end(), out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
  if (2 * ++used_ > entries_.size()) grow();
}

}  // namespace tessera::text
