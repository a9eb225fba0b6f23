#include "text/tokenizer_words.h"

#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

constexpr std::uint8_t kLetter = CharClasses::kLetter, kNumber = CharClasses::kNumber,
                       kSpace = CharClasses::kSpace;
constexpr std::uint8_t kAny = kLetter | kNumber | kSpace;

/// Reads a text word by word. Classes: kLetter, kNumber, kSpace, or 0 for all other characters.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text), classes_(CharClasses::get()) {}

  bool done(std::size_t at) const { return at == text_.size(); }
  unsigned char byte(std::size_t at) const {
    return at < text_.size() ? static_cast<unsigned char>(text_[at]) : 0;
  }
  /// The class of the character at `at`, and where the next one begins. Behind the end: kSpace.
  std::uint8_t read(std::size_t at, std::size_t& next) const {
    next = at;
    if (done(at)) return kSpace;
    return classes_.of(next_char(text_, next)) & kAny;
  }
  /// Behind the longest run of characters of this class.
  std::size_t run(std::size_t at, std::uint8_t wanted,
                  std::size_t most = static_cast<std::size_t>(-1)) const {
    std::size_t next = at;
    while (most-- != 0 && !done(at) && read(at, next) == wanted) at = next;
    return at;
  }
  /// \s+(?!\S)|\s+ : white space, without the last character where a word follows.
  std::size_t space(std::size_t at) const {
    std::size_t last = at, end = at, next = at;
    while (!done(end) && read(end, next) == kSpace) last = end, end = next;
    return done(end) || last == at ? end : last;
  }

 private:
  std::string_view text_;
  const CharClasses& classes_;
};

/// 's 't 're 've 'm 'll 'd behind an apostrophe at `at`: its end, or `at`.
std::size_t contraction(const Reader& reader, std::size_t at, bool any_case) {
  const auto lower = [&](std::size_t i) -> unsigned char {
    const unsigned char c = reader.byte(i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c;
  };
  const unsigned char a = lower(at + 1), b = a == 0 ? static_cast<unsigned char>(0) : lower(at + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  if (any_case && a == 0xC5 && b == 0xBF)
    return at + 3;  // the long s, U+017F, is an s without case
  return at;
}

std::size_t gpt2_word(const Reader& reader, std::size_t at) {
  if (reader.byte(at) == '\'') {
    const std::size_t end = contraction(reader, at, false);
    if (end != at) return end;
  }
  std::size_t next = at;
  const std::size_t begin = reader.byte(at) == ' ' ? at + 1 : at;
  const std::uint8_t kind = reader.read(begin, next);
  return kind == kSpace ? reader.space(at) : reader.run(next, kind);
}

/// [^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
/// behind contractions.
std::size_t llama3_word(const Reader& reader, std::size_t at, std::size_t digits) {
  const auto newline = [&](std::size_t i) {
    return reader.byte(i) == '\r' || reader.byte(i) == '\n';
  };
  if (reader.byte(at) == '\'') {
    const std::size_t end = contraction(reader, at, true);
    if (end != at) return end;
  }
  std::size_t next = at, after = at;
  const std::uint8_t kind = reader.read(at, next);
  if (kind == kLetter) return reader.run(next, kLetter);
  if (kind == kNumber) return reader.run(at, kNumber, digits);
  if (!newline(at) && !reader.done(next) && reader.read(next, after) == kLetter)
    return reader.run(after, kLetter);

  const std::size_t begin = reader.byte(at) == ' ' ? at + 1 : at;
  if (!reader.done(begin) && reader.read(begin, next) == 0) {
    std::size_t end = reader.run(next, 0);
    while (newline(end)) ++end;
    return end;
  }
  std::size_t behind_newline = at;
  for (std::size_t end = at; !reader.done(end) && reader.read(end, next) == kSpace; end = next)
    if (newline(end)) behind_newline = next;
  return behind_newline != at ? behind_newline : reader.space(at);
}

template <class Word>
std::vector<TextPart> all_words(std::string_view text, Word word) {
  const Reader reader(text);
  std::vector<TextPart> parts;
  parts.reserve(text.size() / 5 + 1);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = word(reader, at);
    parts.push_back({at, end, true});
    at = end;
  }
  return parts;
}

}  // namespace

const std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string_view kLlama3Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string_view kQwen2Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<TextPart> gpt2_words(std::string_view text) { return all_words(text, gpt2_word); }

std::vector<TextPart> llama3_words(std::string_view text) {
  return all_words(text,
                   [](const Reader& reader, std::size_t at) { return llama3_word(reader, at, 3); });
}

std::vector<TextPart> qwen2_words(std::string_view text) {
  return all_words(text,
                   [](const Reader& reader, std::size_t at) { return llama3_word(reader, at, 1); });
}

WordMatcher word_matcher(std::string_view expression) {
  if (expression == kGpt2Expression) return gpt2_words;
  if (expression == kLlama3Expression) return llama3_words;
  if (expression == kQwen2Expression) return qwen2_words;
  return nullptr;
}

}  // namespace tessera::text
