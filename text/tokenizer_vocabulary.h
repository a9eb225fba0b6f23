#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

inline std::uint64_t mix_hash(std::uint64_t h) {
  h ^= h >> 32;
  h *= 0x9E3779B97F4A7C15u;
  return h ^ h >> 29;
}

inline std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t h = bytes.size() * 0xD6E8FEB86659FD93u;
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, at += 8) {
    std::uint64_t part;
    std::memcpy(&part, at, 8);
    h = mix_hash(h ^ part);
  }
  std::uint64_t part = 0;
  if (left != 0) std::memcpy(&part, at, left);
  return mix_hash(mix_hash(h ^ part));
}

/// Tokens by id and ids by token. Ids may have gaps.
class Vocabulary {
 public:
  void reserve(std::size_t tokens, std::size_t bytes);
  /// A token given twice has the last id; an id given twice has the last token.
  void add(std::string_view token, std::uint32_t id);
  std::optional<std::uint32_t> find(std::string_view token) const;
  std::string_view token(std::uint32_t id) const;  ///< "" where there is none
  bool has(std::uint32_t id) const { return id < tokens_.size() && tokens_[id].present; }
  std::uint32_t end_id() const {
    return static_cast<std::uint32_t>(tokens_.size());
  }                                                      ///< largest id + 1
  std::size_t count() const { return entries_.size(); }  ///< distinct tokens

 private:
  struct Entry {
    std::size_t begin;
    std::uint32_t length;
    std::uint32_t id;
  };
  struct Token {
    std::uint32_t entry = 0;
    bool present = false;
  };
  std::string_view text(const Entry& e) const {
    return std::string_view(bytes_).substr(e.begin, e.length);
  }
  std::size_t slot_of(std::string_view token) const;
  void grow(std::size_t slots);

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  // 1 + index into entries_, or 0; a power of two of them
  std::vector<Token> tokens_;
};

}  // namespace tessera::text
