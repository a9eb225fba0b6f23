#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text::jinja {
namespace {

constexpr std::string_view kSpace = " \t\n\r\f\v";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80);
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& origin) : origin_(origin) {
    // Python's universal newlines; and the last one does not count.
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) between_tags();
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw FormatError(concat(origin_, ":", line_, ": ", message));
  }
  void add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }
  bool sees(std::string_view what) const {
    return std::string_view(source_).substr(at_).starts_with(what);
  }
  void advance(std::size_t to) {
    line_ += static_cast<std::uint32_t>(
        std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                   source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }
  void skip_space() { advance(std::min(source_.find_first_not_of(kSpace, at_), source_.size())); }

  /// What is left of the text before a tag that begins at `tag`.
  std::string_view before(std::size_t tag, bool lstrip) const {
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign == '-') {
      const auto last = text.find_last_not_of(kSpace);
      return text.substr(0, last == text.npos ? 0 : last + 1);
    }
    if (sign == '+' || !lstrip) return text;
    const auto newline = text.rfind('\n');
    const std::size_t begin = newline == text.npos ? 0 : newline + 1;
    const bool at_line_start = newline != text.npos || line_starts_;
    return at_line_start && text.find_first_not_of(kSpace, begin) == text.npos
               ? text.substr(0, begin)
               : text;
  }

  void between_tags() {
    std::size_t tag = source_.find('{', at_);
    while (tag != source_.npos && tag + 1 < source_.size() &&
           std::string_view("{%#").find(source_[tag + 1]) == std::string_view::npos)
      tag = source_.find('{', tag + 1);
    if (tag == source_.npos || tag + 1 >= source_.size()) {
      add(Token::Kind::text, source_.substr(at_));
      at_ = source_.size();
      return;
    }
    const char type = source_[tag + 1];
    if (const auto text = before(tag, type != '{'); !text.empty())
      add(Token::Kind::text, std::string(text));
    advance(tag + 2);
    if (at_ < source_.size() && (source_[at_] == '-' || (source_[at_] == '+' && type != '{')))
      advance(at_ + 1);
    if (type == '#') return comment();
    if (type == '%' && raw()) return;
    add(type == '{' ? Token::Kind::print_begin : Token::Kind::block_begin, "");
    inside_tag(type == '{' ? '}' : '%');
  }

  /// Moves behind the end of a tag, "%}", "-%}" or "+%}", if it is here.
  bool end_of_tag(char mark) {
    const char end[] = {mark, '}', 0};
    const char sign = at_ < source_.size() ? source_[at_] : ' ';
    const bool signed_end = sign == '-' || (sign == '+' && mark != '}');
    if (source_.compare(at_ + signed_end, 2, end) != 0) return false;
    advance(at_ + signed_end + 2);
    line_starts_ = false;
    if (sign == '-' && signed_end) {
      const std::size_t from = at_;
      skip_space();
      line_starts_ = at_ > from && source_[at_ - 1] == '\n';
    } else if (!signed_end && mark != '}' && at_ < source_.size() && source_[at_] == '\n') {
      advance(at_ + 1);
      line_starts_ = true;
    }
    return true;
  }

  void comment() {
    for (;; advance(at_ + 1)) {
      const std::size_t end = source_.find("#}", at_);
      if (end == source_.npos) fail("a comment {# is not closed by #}");
      advance(
          std::max(at_, end - (end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+'))));
      if (end_of_tag('#')) return;
    }
  }

  /// Where the word of a block tag ends whose words begin at `at`, if it is that one.
  std::optional<std::size_t> word_at(std::size_t at, std::string_view word) const {
    if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
    at = source_.find_first_not_of(kSpace, at);
    if (at == source_.npos || source_.compare(at, word.size(), word) != 0) return std::nullopt;
    at = source_.find_first_not_of(kSpace, at + word.size());
    return at == source_.npos ? source_.size() : at;
  }

  /// Of a tag {% whose words begin here: whether it was "raw %}", and then all of it is read.
  bool raw() {
    const auto begin_end = word_at(at_, "raw");
    if (!begin_end || !end_follows(*begin_end)) return false;
    advance(*begin_end);
    const bool trims = source_[at_] == '-';
    advance(at_ + trims + 2);
    line_starts_ = false;
    if (trims) skip_space();
    for (std::size_t tag = source_.find("{%", at_); tag != source_.npos;
         tag = source_.find("{%", tag + 2)) {
      const auto end = word_at(tag + 2, "endraw");
      if (!end || !end_follows(*end)) continue;
      if (const auto text = before(tag, true); !text.empty())
        add(Token::Kind::text, std::string(text));
      advance(*end);
      return end_of_tag('%');
    }
    fail("{% raw %} is not closed by {% endraw %}");
  }
  bool end_follows(std::size_t at) const {
    const bool sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+');
    return source_.compare(std::min(at + sign, source_.size()), 2, "%}") == 0;
  }

  void inside_tag(char mark) {
    std::string open;  // brackets that are not closed yet
    for (;;) {
      skip_space();
      if (at_ >= source_.size()) fail(concat("a tag is not closed by ", mark == '}' ? "}}" : "%}"));
      if (open.empty() && end_of_tag(mark))
        return add(mark == '}' ? Token::Kind::print_end : Token::Kind::block_end, "");
      const char c = source_[at_];
      if (c == '"' || c == '\'') {
        string(c);
      } else if (is_digit(c)) {
        number();
      } else if (is_word(c)) {
        const std::size_t begin = at_;
        while (at_ < source_.size() && is_word(source_[at_])) ++at_;
        add(Token::Kind::name, source_.substr(begin, at_ - begin));
      } else {
        op(open);
      }
    }
  }

  void op(std::string& open) {
    static constexpr std::array<std::string_view, 24> kOps = {
        "==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~",
        "<",  ">",  "=",  ".",  ":",  "|",  ",", "(", ")", "[", "]", "{"};
    const auto found = std::ranges::find_if(kOps, [&](std::string_view o) { return sees(o); });
    const bool brace = source_[at_] == '}';
    if (found == kOps.end() && !brace) fail(concat("unexpected character '", source_[at_], "'"));
    const std::string text(brace ? "}" : *found);
    if (text == "(" || text == "[" || text == "{")
      open += text == "(" ? ')' : text == "[" ? ']' : '}';
    if (text == ")" || text == "]" || text == "}") {
      if (open.empty() || open.back() != text[0]) fail(concat("unexpected '", text, "'"));
      open.pop_back();
    }
    add(Token::Kind::op, text);
    at_ += text.size();
  }

  void number() {
    const std::size_t begin = at_;
    const auto digits = [&] {
      while (at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_')) ++at_;
    };
    digits();
    bool whole = true;
    if (at_ + 1 < source_.size() && source_[at_] == '.' && is_digit(source_[at_ + 1])) {
      whole = false;
      ++at_;
      digits();
    }
    if (at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
      std::size_t next = at_ + 1;
      if (next < source_.size() && (source_[next] == '+' || source_[next] == '-')) ++next;
      if (next < source_.size() && is_digit(source_[next])) {
        whole = false;
        at_ = next;
        digits();
      }
    }
    std::string text = source_.substr(begin, at_ - begin);
    std::erase(text, '_');
    add(whole ? Token::Kind::integer : Token::Kind::number, text);
  }

  void string(char quote) {
    const std::uint32_t line = line_;
    std::string text;
    std::size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\' || at + 1 >= source_.size()) {
        text += source_[at++];
      } else {
        at = escape(at + 1, text);
      }
    }
    if (at >= source_.size()) fail("a string is not closed");
    advance(at + 1);
    tokens_.push_back({Token::Kind::string, std::move(text), line});
  }

  /// Python's escape sequence at `at`, behind the backslash; what stands behind it.
  std::size_t escape(std::size_t at, std::string& text) {
    static constexpr std::string_view kLetters = "abfnrtv\\'\"\n", kMeant = "\a\b\f\n\r\t\v\\'\"";
    const char c = source_[at];
    if (const auto known = kLetters.find(c); known != kLetters.npos) {
      if (c != '\n') text += kMeant[known];
      return at + 1;
    }
    std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const bool octal = c >= '0' && c <= '7';
    if (digits == 0 && !octal) {
      text += '\\';
      return at;
    }
    char32_t code = 0;
    std::size_t end = at + !octal;
    for (digits = octal ? 3 : digits; digits > 0 && end < source_.size(); --digits, ++end) {
      const auto value = std::string_view("0123456789abcdef").find(source_[end] | 0x20);
      if (value == std::string_view::npos || (octal && value > 7)) break;
      code = code * (octal ? 8 : 16) + static_cast<char32_t>(value);
    }
    if ((digits > 0 && !octal) || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail("not a character that a string can have: \\" + source_.substr(at, end - at));
    append_char(text, code);
    return end;
  }

  std::string source_;
  const std::string& origin_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& origin) {
  return Lexer(source, origin).run();
}

}  // namespace tessera::text::jinja
