#include "text/tokenizer_words.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "text/tokenizer_unicode.h"
#include "text/tokenizer_unicode_ranges.h"

// The matchers written out for well-known expressions, against the expressions themselves.
namespace tessera::text {
namespace {

std::string listed(std::string_view text, const std::vector<TextPart>& parts) {
  std::string out;
  for (const TextPart& part : parts) {
    out += '[';
    out += text.substr(part.begin, part.end - part.begin);
    out += part.match ? ']' : '?';
  }
  return out;
}

/// Whether an older Oniguruma does not know what this character is.
bool is_new(char32_t c) {
  const auto holds = [c](const CharRange& range) { return range.first <= c && c <= range.last; };
  return std::ranges::any_of(kNewLetters, holds) || std::ranges::any_of(kNewNumbers, holds);
}

/// Mostly characters for which the expressions have rules, some of any script.
std::string random_text(std::mt19937& random) {
  static const char32_t kChosen[] = {
      ' ',    ' ',    ' ',    '\n',   '\r',    '\t',    '\'',    '\'',   's',    'S',
      't',    'r',    'e',    'E',    'v',     'm',     'l',     'L',    'd',    'a',
      'Z',    '0',    '9',    '1',    '.',     '!',     '_',     0,      0x0B,   0x1C,
      0x85,   0xA0,   0xBD,   0xE9,   0x149,   0x17F,   0x301,   0x661,  0x915,  0x94D,
      0x1680, 0x180E, 0x200B, 0x200D, 0x2028,  0x2029,  0x202F,  0x2167, 0x212A, 0x3000,
      0x4F60, 0xAC00, 0xFB05, 0xFEFF, 0x1D7D8, 0x1F600, 0x10FFFF};
  std::string text;
  for (unsigned n = random() % 40; n > 0; --n) {
    char32_t c = kChosen[random() % std::size(kChosen)];
    if (random() % 16 == 0) c = random() % 0x110000;
    if ((c < 0xD800 || c > 0xDFFF) && !is_new(c)) append_char(text, c);
  }
  return text;
}

TEST(TokenizerWords, MatchTheExpressionsOnRandomText) {
  std::mt19937 random(42);
  for (const std::string_view expression : {kGpt2Expression, kLlama3Expression, kQwen2Expression}) {
    const WordMatcher matcher = word_matcher(expression);
    ASSERT_NE(matcher, nullptr);
    const Regex regex(std::string(expression), "test");
    for (int i = 0; i < 20000; ++i) {
      const std::string text = random_text(random);
      if (text.empty()) continue;
      ASSERT_EQ(listed(text, matcher(text)), listed(text, regex.parts(text))) << expression;
    }
  }
}

TEST(TokenizerWords, OtherExpressionsHaveNoMatcher) {
  EXPECT_EQ(word_matcher(""), nullptr);
  EXPECT_EQ(word_matcher(R"(\s+)"), nullptr);
}

TEST(TokenizerUnicode, InvalidUtf8IsReplacedPartByPart) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("a\xFF"
                                 "b"),
            "a" + r + "b");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), r);
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), r + r);          // overlong
  EXPECT_EQ(replace_invalid_utf8("\xE2\x82\x41\xE2\x82\xAC"), r + "A\xE2\x82\xAC");
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);
}

TEST(TokenizerUnicode, NormalFormsAndCase) {
  EXPECT_EQ(normalize("e\xCC\x81", NormalForm::nfc), "\xC3\xA9");
  EXPECT_EQ(normalize("\xC3\xA9", NormalForm::nfd), "e\xCC\x81");
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::nfkc), "fi");
  EXPECT_EQ(normalize("\xEF\xAC\x81", NormalForm::nfc), "\xEF\xAC\x81");
  EXPECT_EQ(normalize("a\xCC\x88\xCC\xA3", NormalForm::nfd),
            "a\xCC\xA3\xCC\x88");  // by combining class
  EXPECT_EQ(lowercase("A\xC3\x89\xCE\xA3\xC4\xB0z"), "a\xC3\xA9\xCF\x83i\xCC\x87z");
}

TEST(TokenizerUnicode, EveryByteHasItsCharacter) {
  for (int b = 0; b < 256; ++b)
    EXPECT_EQ(char_to_byte(byte_to_char(static_cast<unsigned char>(b))), b);
  EXPECT_EQ(byte_to_char('A'), U'A');
  EXPECT_EQ(byte_to_char(' '), U'\u0120');
  EXPECT_EQ(char_to_byte(U' '), -1);
  EXPECT_EQ(char_to_byte(0x4F60), -1);
}

// As HF tokenizers, whatever Unicode the installed Oniguruma knows.
TEST(TokenizerUnicode, NewerLettersAndNumbersAreKnown) {
  const CharClasses& classes = CharClasses::get();
  for (const char32_t c : {0x1C89, 0x11F02, 0x1E030, 0x2EBF0, 0x31350, 0x31578, 0x323AF})
    EXPECT_TRUE(classes.is(c, CharClasses::kLetter)) << std::uint32_t{c};
  for (const char32_t c : {0x10D40, 0x11F59, 0x16D73, 0x1E5FA})
    EXPECT_TRUE(classes.is(c, CharClasses::kNumber)) << std::uint32_t{c};
  for (const char32_t c : {0x31349 + 2, 0x323B0, 0x1E06E, 0x10D66})
    EXPECT_FALSE(classes.is(c, CharClasses::kLetter | CharClasses::kNumber)) << std::uint32_t{c};
  const std::string ideograph = "\xF0\xB1\x95\xB8", hangul = "\xEB\xBA\xB5";  // U+31578, U+BEB5
  EXPECT_EQ(gpt2_words(ideograph + hangul).size(), 1u);
}

}  // namespace
}  // namespace tessera::text
