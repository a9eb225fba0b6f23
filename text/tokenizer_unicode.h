#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

/// Properties of characters as the tokenizer's regular expressions see them, one byte a code point.
class CharClasses {
 public:
  static constexpr std::uint8_t kLetter = 1;        ///< \p{L}
  static constexpr std::uint8_t kNumber = 2;        ///< \p{N}
  static constexpr std::uint8_t kSpace = 4;         ///< White_Space, which is \s
  static constexpr std::uint8_t kWord = 8;          ///< \w of Rust's regular expressions
  static constexpr std::uint8_t kPunctuation = 16;  ///< \p{P} and the ASCII punctuation
  static constexpr std::uint8_t kMark = 32;         ///< \p{M}

  /// Made at the first call, from the regular expression library's tables and what newer Unicode
  /// versions added to them.
  static const CharClasses& get();
  std::uint8_t of(char32_t c) const { return bits_[c]; }
  bool is(char32_t c, std::uint8_t classes) const { return (bits_[c] & classes) != 0; }

 private:
  CharClasses();
  std::vector<std::uint8_t> bits_;
};

/// The code point at text[at], of valid UTF-8; `at` moves behind it.
inline char32_t next_char(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return text[at++];
  if (lead < 0xE0) {
    at += 2;
    return static_cast<char32_t>((lead & 0x1F) << 6 | (byte(at - 1) & 0x3F));
  }
  if (lead < 0xF0) {
    at += 3;
    return static_cast<char32_t>((lead & 0x0F) << 12 | (byte(at - 2) & 0x3F) << 6 |
                                 (byte(at - 1) & 0x3F));
  }
  at += 4;
  return static_cast<char32_t>((lead & 0x07) << 18 | (byte(at - 3) & 0x3F) << 12 |
                               (byte(at - 2) & 0x3F) << 6 | (byte(at - 1) & 0x3F));
}
/// The code point that ends before text[at], of valid UTF-8; `at` moves to its first byte.
char32_t previous_char(std::string_view text, std::size_t& at);
/// Bytes of the character that begins with this byte, in valid UTF-8.
inline std::size_t char_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
void append_char(std::string& out, char32_t c);

/// How text[at...] begins: `length` bytes that are one character (valid), a maximal ill-formed part
/// (not valid), or what may still become a character with more bytes (not valid, incomplete).
struct Utf8Part {
  std::size_t length;
  bool valid;
  bool incomplete;
};
Utf8Part utf8_part(std::string_view text, std::size_t at);
/// Bytes of text, from its start on, that are valid UTF-8.
std::size_t valid_utf8_prefix(std::string_view text);
/// Every maximal ill-formed part replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string_view text, NormalForm form);
/// Character by character, by the full mapping without context (so a final sigma is an ordinary
/// one).
std::string lowercase(std::string_view text);

/// GPT-2's printable stand-ins for bytes: UTF-8 text with one character for each byte, and back.
char32_t byte_to_char(unsigned char byte);
int char_to_byte(char32_t c);  ///< -1 where c stands for no byte
std::string byte_level(std::string_view bytes);

}  // namespace tessera::text
