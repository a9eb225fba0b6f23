#include "text/english_numbers.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "text/metrics.h"
#include "text/tokenizer_regex.h"

namespace tessera::text {
namespace {

/// "sixth" -> 6 and "th".
struct Suffixed {
  std::string digits;
  std::string suffix;
};

/// The words that can be part of a number.
struct Vocabulary {
  std::set<std::string> zeros{"o", "oh", "zero"};
  std::map<std::string, std::string> ones, tens;
  std::map<std::string, std::size_t> multipliers;  // how many zeros they put behind a number
  std::map<std::string, Suffixed> ones_suffixed, tens_suffixed;
  std::map<std::string, std::pair<std::size_t, std::string>> multipliers_suffixed;
  std::map<std::string, std::string> preceding{
      {"minus", "-"}, {"negative", "-"}, {"plus", "+"}, {"positive", "+"}};
  std::map<std::string, std::string> following{{"pound", "£"}, {"pounds", "£"}, {"euro", "€"},
                                               {"euros", "€"}, {"dollar", "$"}, {"dollars", "$"},
                                               {"cent", "¢"},  {"cents", "¢"}};
  std::set<std::string> specials{"and", "double", "triple", "point"};

  Vocabulary() {
    const std::array<const char*, 19> names = {
        "one",     "two",     "three",     "four",     "five",    "six",      "seven",
        "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen", "fourteen",
        "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
    const std::map<int, std::string> irregular{
        {1, "first"}, {2, "second"}, {3, "third"}, {5, "fifth"}, {12, "twelfth"}};
    for (int i = 1; i <= 19; ++i) {
      const std::string name = names[static_cast<std::size_t>(i - 1)], digits = std::to_string(i);
      ones[name] = digits;
      ones_suffixed[name == "six" ? "sixes" : name + "s"] = {digits, "s"};
      const auto found = irregular.find(i);
      const std::string ordinal =
          found != irregular.end() ? found->second : name + (name.back() == 't' ? "h" : "th");
      ones_suffixed[ordinal] = {digits, i == 1 ? "st" : i == 2 ? "nd" : i == 3 ? "rd" : "th"};
    }
    ones_suffixed["zeroth"] = {"0", "th"};
    int ten = 20;
    for (const std::string name :
         {"twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"}) {
      const std::string stem = name.substr(0, name.size() - 1), digits = std::to_string(ten);
      tens[name] = digits;
      tens_suffixed[stem + "ies"] = {digits, "s"};
      tens_suffixed[stem + "ieth"] = {digits, "th"};
      ten += 10;
    }
    const std::vector<std::pair<std::string, std::size_t>> powers = {
        {"hundred", 2},     {"thousand", 3},     {"million", 6},      {"billion", 9},
        {"trillion", 12},   {"quadrillion", 15}, {"quintillion", 18}, {"sextillion", 21},
        {"septillion", 24}, {"octillion", 27},   {"nonillion", 30},   {"decillion", 33}};
    for (const auto& [name, count] : powers) {
      multipliers[name] = count;
      multipliers_suffixed[name + "s"] = {count, "s"};
      multipliers_suffixed[name + "th"] = {count, "th"};
    }
  }

  bool decimal(const std::string& word) const {
    return ones.count(word) > 0 || tens.count(word) > 0 || zeros.count(word) > 0;
  }
  bool suffixer(const std::string& word) const { return word == "per" || word == "percent"; }
  bool knows(const std::string& word) const {
    return decimal(word) || multipliers.count(word) > 0 || ones_suffixed.count(word) > 0 ||
           tens_suffixed.count(word) > 0 || multipliers_suffixed.count(word) > 0 ||
           preceding.count(word) > 0 || following.count(word) > 0 || suffixer(word) ||
           specials.count(word) > 0;
  }
};

const Vocabulary& vocabulary() {
  static const Vocabulary words;
  return words;
}

// --- whole numbers of any length, as their digits ---

std::string strip_zeros(const std::string& digits) {
  const auto first = digits.find_first_not_of('0');
  return first == digits.npos ? "0" : digits.substr(first);
}

std::string add(std::string a, std::string b) {
  if (a.size() < b.size()) std::swap(a, b);
  b.insert(0, a.size() - b.size(), '0');
  int carry = 0;
  for (std::size_t i = a.size(); i-- > 0;) {
    const int sum = (a[i] - '0') + (b[i] - '0') + carry;
    a[i] = static_cast<char>('0' + sum % 10);
    carry = sum / 10;
  }
  if (carry) a.insert(a.begin(), '1');
  return strip_zeros(a);
}

std::string shifted(const std::string& digits, std::size_t zeros) {
  return strip_zeros(digits + std::string(zeros, '0'));
}

/// The last three digits times a power of ten; what stands before them stays.
std::string multiply_last_group(const std::string& digits, std::size_t zeros) {
  const std::size_t cut = digits.size() > 3 ? digits.size() - 3 : 0;
  const std::string before = cut > 0 ? digits.substr(0, cut) + "000" : "0";
  return add(before, shifted(digits.substr(cut), zeros));
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// "12" or "12.5".
bool is_number(std::string_view word) {
  std::size_t i = 0, dots = 0;
  while (i < word.size() &&
         (is_digit(word[i]) || (word[i] == '.' && i > 0 && dots == 0 && i + 1 < word.size())))
    dots += word[i++] == '.' ? 1 : 0;
  return i > 0 && i == word.size();
}

/// A decimal fraction times a power of ten, where that is a whole number.
std::optional<std::string> times_power(const std::string& text, std::size_t zeros) {
  const auto dot = text.find('.');
  const std::string whole = text.substr(0, dot);
  std::string part = dot == text.npos ? "" : text.substr(dot + 1);
  if (whole.empty() && part.empty()) return std::nullopt;
  if (!std::ranges::all_of(whole, is_digit) || !std::ranges::all_of(part, is_digit))
    return std::nullopt;
  while (!part.empty() && part.back() == '0') part.pop_back();
  if (part.size() > zeros) return std::nullopt;
  return shifted(whole + part, zeros - part.size());
}

// --- words to numbers ---

/// The number so far: a whole number, or a text of digits to which more are only appended.
struct Value {
  bool whole;
  std::string digits;
};

constexpr std::array<std::string_view, 6> kPrefixes = {"-", "+", "£", "€", "$", "¢"};

class Reader {
 public:
  explicit Reader(const Words& words) : words_(words) {}

  Words read() {
    for (std::size_t i = 0; i < words_.size(); ++i) i += read_word(i);
    if (value_) output_value();
    return std::move(out_);
  }

 private:
  void output(const std::string& text) {
    out_.push_back(prefix_ + text);
    prefix_.clear();
    value_.reset();
  }
  void output_value() { output(std::string(value_->digits)); }
  void flush() {
    if (value_) output_value();
  }

  /// The digits, or nothing where the reference finds the value false: none, or the number 0.
  std::string truthy() const {
    return !value_ || (value_->whole && value_->digits == "0") ? "" : value_->digits;
  }
  bool in(const std::map<std::string, std::string>& map, std::size_t i) const {
    return i < words_.size() && map.count(words_[i]) > 0;
  }
  bool next_is_word(std::size_t i) const {
    return i + 1 < words_.size() && v_.knows(words_[i + 1]);
  }
  bool next_is_number(std::size_t i) const {
    return i + 1 < words_.size() && is_number(words_[i + 1]);
  }
  bool previous_in(const std::map<std::string, std::string>& map, std::size_t i) const {
    return i > 0 && map.count(words_[i - 1]) > 0;
  }

  /// Reads word i; returns how many more were used up.
  std::size_t read_word(std::size_t i) {
    const std::string& word = words_[i];
    std::size_t sign = 0;
    for (const std::string_view p : kPrefixes)
      if (word.compare(0, p.size(), p) == 0) sign = p.size();
    if (is_number(std::string_view(word).substr(sign))) {
      read_digits(word, sign);
    } else if (!v_.knows(word)) {
      flush();
      output(word);
    } else if (v_.zeros.count(word)) {
      value_ = {false, truthy() + "0"};
    } else if (in(v_.ones, i)) {
      value_ = with_ones(v_.ones.at(word), i);
    } else if (const auto ones = v_.ones_suffixed.find(word); ones != v_.ones_suffixed.end()) {
      output(with_ones(ones->second.digits, i).digits + ones->second.suffix);
    } else if (in(v_.tens, i)) {
      value_ = with_tens(v_.tens.at(word));
    } else if (const auto tens = v_.tens_suffixed.find(word); tens != v_.tens_suffixed.end()) {
      output(with_tens(tens->second.digits).digits + tens->second.suffix);
    } else if (const auto times = v_.multipliers.find(word); times != v_.multipliers.end()) {
      value_ = multiplied(times->second);
    } else if (const auto ordinal = v_.multipliers_suffixed.find(word);
               ordinal != v_.multipliers_suffixed.end()) {
      output(multiplied_suffixed(ordinal->second.first).digits + ordinal->second.second);
    } else if (const auto sign_word = v_.preceding.find(word); sign_word != v_.preceding.end()) {
      flush();
      if (next_is_word(i) || next_is_number(i)) {
        prefix_ = sign_word->second;
      } else {
        output(word);
      }
    } else if (const auto currency = v_.following.find(word); currency != v_.following.end()) {
      if (value_) {
        prefix_ = currency->second;
        output_value();
      } else {
        output(word);
      }
    } else if (v_.suffixer(word)) {
      return read_percent(i);
    } else {
      return read_special(i);
    }
    return 0;
  }

  void read_digits(const std::string& word, std::size_t sign) {
    if (value_) {
      if (!value_->whole && value_->digits.ends_with(".")) {  // decimals, parts of an address
        value_->digits += word;
        return;
      }
      output_value();
    }
    if (sign > 0) prefix_ = word.substr(0, sign);
    const std::string digits = word.substr(sign);
    const auto whole = times_power(digits, 0);
    value_ = whole ? Value{true, *whole} : Value{false, digits};
  }

  Value with_ones(const std::string& ones, std::size_t i) const {
    if (!value_) return {true, ones};
    const std::string& digits = value_->digits;
    const bool small = ones.size() == 1;
    if (!value_->whole || previous_in(v_.ones, i)) {
      if (previous_in(v_.tens, i) && small)  // in place of the last zero
        return {false, digits.substr(0, digits.size() - 1) + ones};
      return {false, digits + ones};
    }
    const bool fits = small ? digits.ends_with("0") : digits == "0" || digits.ends_with("00");
    return fits ? Value{true, add(digits, ones)} : Value{false, digits + ones};
  }

  Value with_tens(const std::string& tens) const {
    if (!value_) return {true, tens};
    const std::string& digits = value_->digits;
    const bool fits = value_->whole && (digits == "0" || digits.ends_with("00"));
    return fits ? Value{true, add(digits, tens)} : Value{false, digits + tens};
  }

  Value multiplied(std::size_t zeros) {
    const Value alone{true, "1" + std::string(zeros, '0')};
    if (!value_) return alone;
    if (value_->whole && value_->digits != "0")
      return {true, multiply_last_group(value_->digits, zeros)};
    if (const auto product = times_power(value_->digits, zeros)) return {true, *product};
    output_value();
    return alone;
  }
  /// The same, but the number 0 counts as any other whole one.
  Value multiplied_suffixed(std::size_t zeros) {
    if (value_ && value_->whole) return {true, multiply_last_group(value_->digits, zeros)};
    return multiplied(zeros);
  }

  std::size_t read_percent(std::size_t i) {
    const std::string& word = words_[i];
    if (!value_) {
      output(word);
    } else if (word == "percent") {
      output(value_->digits + "%");
    } else if (i + 1 < words_.size() && words_[i + 1] == "cent") {
      output(value_->digits + "%");
      return 1;
    } else {
      output_value();
      output(word);
    }
    return 0;
  }

  std::size_t read_special(std::size_t i) {
    const std::string& word = words_[i];
    const bool numeric = next_is_word(i) || next_is_number(i);
    if (numeric && word == "point") {
      if (v_.decimal(words_[i + 1]) || next_is_number(i)) value_ = {false, truthy() + "."};
      return 0;
    }
    if (numeric && word == "and" && i > 0 && v_.multipliers.count(words_[i - 1]))
      return 0;  // "hundred and one"
    if (numeric && word != "and" &&
        (in(v_.ones, i + 1) || v_.zeros.count(words_[i + 1]) > 0)) {  // double, triple
      const std::string ones = in(v_.ones, i + 1) ? v_.ones.at(words_[i + 1]) : "0";
      std::string digits = truthy();
      for (int n = word == "double" ? 2 : 3; n > 0; --n) digits += ones;
      value_ = {false, digits};
      return 1;
    }
    flush();
    output(word);
    return 0;
  }

  const Vocabulary& v_ = vocabulary();
  const Words& words_;
  Words out_;
  std::string prefix_;
  std::optional<Value> value_;
};

Regex pattern(const char* text) { return Regex(text, "numbers in words"); }

/// "<number> and a half" -> "<number> point five"; a space between digits and letters, none before
/// what can be a suffix.
std::string prepare(const std::string& text) {
  static const Regex half = pattern(R"(\band\s+a\s+half\b)"),
                     letter_digit = pattern("([a-z])([0-9])"),
                     digit_letter = pattern("([0-9])([a-z])"),
                     suffix = pattern(R"(([0-9])\s+(st|nd|rd|th|s)\b)");
  std::string joined;
  const auto append = [&](const std::string& part) {
    joined += (joined.empty() ? "" : " ") + part;
  };
  std::vector<std::string> segments(1);
  for (const TextPart& part : half.parts(text)) {
    if (part.match) {
      segments.emplace_back();
    } else {
      segments.back() = text.substr(part.begin, part.end - part.begin);
    }
  }
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Words words = split_words(segments[i]);
    if (words.empty()) continue;
    append(segments[i]);
    if (i + 1 == segments.size()) break;
    const bool number =
        vocabulary().decimal(words.back()) || vocabulary().multipliers.count(words.back()) > 0;
    append(number ? "point five" : "and a half");
  }
  return suffix.replace(digit_letter.replace(letter_digit.replace(joined, "\\1 \\2"), "\\1 \\2"),
                        "\\1\\2");
}

/// "$2 and ¢7" -> "$2.07", "$0.7" -> "¢7", "1" -> "one".
std::string finish(const std::string& text) {
  static const Regex two_digits = pattern(R"(([€£$])([0-9]+) (?:and )?¢([0-9][0-9])\b)"),
                     one_digit = pattern(R"(([€£$])([0-9]+) (?:and )?¢([0-9])\b)"),
                     few_cents = pattern(R"([€£$]0.0([0-9])\b)"),
                     cents = pattern(R"([€£$]0.([0-9]{1,2})\b)"), one = pattern(R"(\b1(s?)\b)");
  std::string out = two_digits.replace(text, "\\1\\2.\\3");
  out = one_digit.replace(out, "\\1\\2.0\\3");
  out = cents.replace(few_cents.replace(out, "¢\\1"), "¢\\1");
  return one.replace(out, "one\\1");
}

}  // namespace

std::string numbers_to_digits(const std::string& text) {
  std::string joined;
  for (const std::string& word : Reader(split_words(prepare(text))).read())
    joined += (joined.empty() ? "" : " ") + word;
  return finish(joined);
}

}  // namespace tessera::text
