#include "text/tokenizer_unicode.h"

#include <oniguruma.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

#include "core/error.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_unicode_ranges.h"

namespace tessera::text {
namespace {

constexpr char32_t kCodePoints = 0x110000;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

void mark(std::vector<std::uint8_t>& bits, std::string_view property, std::uint8_t flag) {
  std::string name(property);
  auto* begin = reinterpret_cast<OnigUChar*>(name.data());
  const int ctype = ONIGENC_PROPERTY_NAME_TO_CTYPE(ONIG_ENCODING_UTF8, begin, begin + name.size());
  OnigCodePoint single_bytes = 0;
  const OnigCodePoint* ranges = nullptr;
  if (ctype < 0 || ONIG_ENCODING_UTF8->get_ctype_code_range(static_cast<OnigCtype>(ctype),
                                                            &single_bytes, &ranges) != 0)
    throw UnsupportedError(concat("Oniguruma has no character property ", property));
  for (OnigCodePoint i = 0; i < ranges[0]; ++i)
    for (OnigCodePoint c = ranges[1 + 2 * i];
         c <= std::min<OnigCodePoint>(ranges[2 + 2 * i], kCodePoints - 1); ++c)
      bits[c] |= flag;
}

void mark(std::vector<std::uint8_t>& bits, std::span<const CharRange> ranges, std::uint8_t flag) {
  for (const CharRange& range : ranges)
    for (char32_t c = range.first; c <= range.last; ++c) bits[c] |= flag;
}

std::vector<std::uint8_t> make_bits() {
  initialize_regex();
  std::vector<std::uint8_t> bits(kCodePoints);
  mark(bits, "L", CharClasses::kLetter);
  mark(bits, "N", CharClasses::kNumber);
  mark(bits, kNewLetters, CharClasses::kLetter | CharClasses::kWord);
  mark(bits, kNewNumbers, CharClasses::kNumber);
  mark(bits, "White_Space", CharClasses::kSpace);
  mark(bits, "M", CharClasses::kMark | CharClasses::kWord);
  for (const std::string_view word : {"Alphabetic", "Nd", "Pc", "Join_Control"})
    mark(bits, word, CharClasses::kWord);
  mark(bits, "P", CharClasses::kPunctuation);
  for (const char c : std::string_view("$+<=>^`|~"))
    bits[static_cast<unsigned char>(c)] |= CharClasses::kPunctuation;
  return bits;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<signed char>(c) >= 0; });
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

void decompose(char32_t c, utf8proc_option_t options, std::vector<utf8proc_int32_t>& out) {
  std::array<utf8proc_int32_t, 32> parts;  // the longest decomposition, of U+FDFA, has 18
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                         parts.size(), options, &boundary);
  if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size())) {
    out.push_back(static_cast<utf8proc_int32_t>(c));
  } else {
    out.insert(out.end(), parts.begin(), parts.begin() + n);
  }
}

/// Canonical order: each run of combining characters, stably by class.
void reorder(std::vector<utf8proc_int32_t>& chars) {
  for (auto begin = chars.begin(); begin != chars.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, chars.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

constexpr std::array<char32_t, 256> make_byte_chars() {
  std::array<char32_t, 256> chars{};
  char32_t next = 256;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
    chars[b] = printable ? b : next++;
  }
  return chars;
}

constexpr char32_t kByteCharEnd = 256 + 68;
constexpr std::array<char32_t, 256> kByteChars = make_byte_chars();

constexpr std::array<std::int16_t, kByteCharEnd> make_char_bytes() {
  std::array<std::int16_t, kByteCharEnd> bytes{};
  for (std::int16_t& b : bytes) b = -1;
  for (unsigned b = 0; b < 256; ++b) bytes[kByteChars[b]] = static_cast<std::int16_t>(b);
  return bytes;
}
constexpr std::array<std::int16_t, kByteCharEnd> kCharBytes = make_char_bytes();

}  // namespace

CharClasses::CharClasses() : bits_(make_bits()) {}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;
  return classes;
}

char32_t previous_char(std::string_view text, std::size_t& at) {
  do --at;
  while ((text[at] & 0xC0) == 0x80);
  std::size_t copy = at;
  return next_char(text, copy);
}

void append_char(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)),
        put(0x80 | (c & 0x3F));
  }
}

Utf8Part utf8_part(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const std::size_t length = char_length(lead);
  // The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF.
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {i, false, true};
    if (byte(at + i) < low || byte(at + i) > high) return {i, false, false};
    low = 0x80, high = 0xBF;
  }
  return {length, true, false};
}

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<signed char>(text[at]) >= 0) {
      ++at;
      continue;
    }
    const Utf8Part part = utf8_part(text, at);
    if (!part.valid) break;
    at += part.length;
  }
  return at;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t good = valid_utf8_prefix(text.substr(at));
    out.append(text, at, good);
    at += good;
    if (at == text.size()) break;
    out.append(kReplacement);
    at += utf8_part(text, at).length;
  }
  return out;
}

std::string normalize(std::string_view text, NormalForm form) {
  if (is_ascii(text)) return std::string(text);
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) decompose(next_char(text, at), options, chars);
  reorder(chars);
  auto length = static_cast<utf8proc_ssize_t>(chars.size());
  if (compose)
    length = utf8proc_normalize_utf32(
        chars.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < length; ++i)
    append_char(out, static_cast<char32_t>(chars[static_cast<std::size_t>(i)]));
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c < 0x80) {
      out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    } else if (c == 0x130) {  // the only character whose lower case is two
      out.append("i\xCC\x87");
    } else {
      append_char(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

char32_t byte_to_char(unsigned char byte) { return kByteChars[byte]; }

int char_to_byte(char32_t c) { return c < kByteCharEnd ? kCharBytes[c] : -1; }

std::string byte_level(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_char(out, kByteChars[static_cast<unsigned char>(byte)]);
  return out;
}

}  // namespace tessera::text
