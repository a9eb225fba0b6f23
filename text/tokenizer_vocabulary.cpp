#include "text/tokenizer_vocabulary.h"

#include <bit>

namespace tessera::text {

void Vocabulary::reserve(std::size_t tokens, std::size_t bytes) {
  bytes_.reserve(bytes);
  entries_.reserve(tokens);
  tokens_.reserve(tokens);
  grow(std::bit_ceil(2 * tokens + 16));
}

void Vocabulary::grow(std::size_t slots) {
  slots_.assign(slots, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i)
    slots_[slot_of(text(entries_[i]))] = static_cast<std::uint32_t>(i + 1);
}

std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = hash_bytes(token) & mask;
  while (slots_[slot] != 0 && text(entries_[slots_[slot] - 1]) != token) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::add(std::string_view token, std::uint32_t id) {
  if (2 * entries_.size() + 2 > slots_.size()) grow(std::bit_ceil(4 * entries_.size() + 16));
  const std::size_t slot = slot_of(token);
  if (slots_[slot] == 0) {
    entries_.push_back({bytes_.size(), static_cast<std::uint32_t>(token.size()), id});
    bytes_.append(token);
    slots_[slot] = static_cast<std::uint32_t>(entries_.size());
  } else {
    entries_[slots_[slot] - 1].id = id;
  }
  if (id >= tokens_.size()) tokens_.resize(id + std::size_t{1});
  tokens_[id] = {slots_[slot] - 1, true};
}

std::optional<std::uint32_t> Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const std::uint32_t entry = slots_[slot_of(token)];
  if (entry == 0) return std::nullopt;
  return entries_[entry - 1].id;
}

std::string_view Vocabulary::token(std::uint32_t id) const {
  if (!has(id)) return {};
  return text(entries_[tokens_[id].entry]);
}

}  // namespace tessera::text
