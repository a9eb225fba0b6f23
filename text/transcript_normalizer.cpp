#include "text/transcript_normalizer.h"

#include <utf8proc.h>

#include <utility>
#include <vector>

#include "core/config.h"
#include "text/english_numbers.h"
#include "text/metrics.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

Regex pattern(const std::string& text) { return Regex(text, "transcript normaliser"); }

/// Letters that NFKD takes nothing from.
const std::map<char32_t, std::string>& plain_letters() {
  static const std::map<char32_t, std::string> letters = {
      {U'œ', "oe"}, {U'Œ', "OE"}, {U'ø', "o"}, {U'Ø', "O"}, {U'æ', "ae"}, {U'Æ', "AE"},
      {U'ß', "ss"}, {U'ẞ', "SS"}, {U'đ', "d"}, {U'Đ', "D"}, {U'ð', "d"},  {U'Ð', "D"},
      {U'þ', "th"}, {U'Þ', "th"}, {U'ł', "l"}, {U'Ł', "L"}};
  return letters;
}

/// Marks, symbols and punctuation.
bool is_symbol(utf8proc_category_t c) {
  return (c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME) ||
         (c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_SO);
}

std::string without_symbols(const std::string& text) {
  std::string out;
  const std::string composed = normalize(text, NormalForm::nfkc);
  for (std::size_t at = 0; at < composed.size();) {
    const char32_t c = next_char(composed, at);
    append_char(out, is_symbol(utf8proc_category(static_cast<utf8proc_int32_t>(c))) ? U' ' : c);
  }
  return out;
}

std::string without_symbols_and_diacritics(const std::string& text, std::u32string_view keep) {
  std::string out;
  const std::string decomposed = normalize(text, NormalForm::nfkd);
  for (std::size_t at = 0; at < decomposed.size();) {
    const char32_t c = next_char(decomposed, at);
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    const auto letter = plain_letters().find(c);
    if (keep.find(c) != keep.npos) {
      append_char(out, c);
    } else if (letter != plain_letters().end()) {
      out += letter->second;
    } else if (category != UTF8PROC_CATEGORY_MN) {
      append_char(out, is_symbol(category) ? U' ' : c);
    }
  }
  return out;
}

std::string without_brackets(const std::string& text) {
  static const Regex brackets = pattern(R"([<\[][^>\]]*[>\]])"),
                     parentheses = pattern(R"(\(([^)]+?)\))");
  return parentheses.replace(brackets.replace(text, ""), "");
}

std::string single_spaces(const std::string& text) {
  static const Regex spaces = pattern(R"(\s+)");
  return spaces.replace(text, " ");
}

/// Contractions, titles and fillers, in the order in which they are replaced.
const std::vector<std::pair<Regex, std::string>>& replacements() {
  static const auto all = [] {
    std::vector<std::pair<Regex, std::string>> list;
    const auto add = [&](const std::string& from, const std::string& to) {
      list.emplace_back(pattern(from), to);
    };
    add(R"(\b(hmm|mm|mhm|mmm|uh|um)\b)", "");
    add(R"(\s+')", "'");
    const std::vector<std::pair<std::string, std::string>> words = {
        {"won't", "will not"},      {"can't", "can not"},     {"let's", "let us"},
        {"ain't", "aint"},          {"y'all", "you all"},     {"wanna", "want to"},
        {"gotta", "got to"},        {"gonna", "going to"},    {"i'ma", "i am going to"},
        {"imma", "i am going to"},  {"woulda", "would have"}, {"coulda", "could have"},
        {"shoulda", "should have"}, {"ma'am", "madam"},       {"mr", "mister "},
        {"mrs", "missus "},         {"st", "saint "},         {"dr", "doctor "},
        {"prof", "professor "},     {"capt", "captain "},     {"gov", "governor "},
        {"ald", "alderman "},       {"gen", "general "},      {"sen", "senator "},
        {"rep", "representative "}, {"pres", "president "},   {"rev", "reverend "},
        {"hon", "honorable "},      {"asst", "assistant "},   {"assoc", "associate "},
        {"lt", "lieutenant "},      {"col", "colonel "},      {"jr", "junior "},
        {"sr", "senior "},          {"esq", "esquire "}};
    for (const auto& [from, to] : words) add(R"(\b)" + from + R"(\b)", to);
    const std::vector<std::pair<std::string, std::string>> endings = {{"'d been", " had been"},
                                                                      {"'s been", " has been"},
                                                                      {"'d gone", " had gone"},
                                                                      {"'s gone", " has gone"},
                                                                      {"'d done", " had done"},
                                                                      {"'s got", " has got"},
                                                                      {"n't", " not"},
                                                                      {"'re", " are"},
                                                                      {"'s", " is"},
                                                                      {"'d", " would"},
                                                                      {"'ll", " will"},
                                                                      {"'t", " not"},
                                                                      {"'ve", " have"},
                                                                      {"'m", " am"}};
    for (const auto& [from, to] : endings) add(from + R"(\b)", to);
    add(R"((\d),(\d))", "\\1\\2");    // 1,000
    add(R"(\.([^0-9]|\z))", " \\1");  // the end of a sentence
    return list;
  }();
  return all;
}

}  // namespace

std::string normalize_transcript(const std::string& text) {
  const std::string plain = without_brackets(lowercase(replace_invalid_utf8(text)));
  return single_spaces(lowercase(without_symbols(plain)));
}

EnglishNormalizer EnglishNormalizer::of_checkpoint(const std::filesystem::path& directory) {
  Spellings spellings;
  const auto file = directory / "normalizer.json";
  std::error_code ignored;
  if (std::filesystem::exists(file, ignored)) {
    const Config table = Config::read(file);
    for (const std::string& word : table.keys()) spellings[word] = table.string(word);
  }
  return EnglishNormalizer(std::move(spellings));
}

std::string EnglishNormalizer::operator()(const std::string& text) const {
  static const Regex currency = pattern(R"([.$¢€£]([^0-9]))"), percent = pattern("([^0-9])%");
  std::string plain = without_brackets(lowercase(replace_invalid_utf8(text)));
  for (const auto& [from, to] : replacements()) plain = from.replace(plain, to);
  plain = numbers_to_digits(without_symbols_and_diacritics(plain, U".%$¢€£"));
  std::string spelt;
  for (const std::string& word : split_words(plain)) {
    const auto found = spellings_.find(word);
    spelt += (spelt.empty() ? "" : " ") + (found == spellings_.end() ? word : found->second);
  }
  return single_spaces(percent.replace(currency.replace(spelt, " \\1"), "\\1 "));
}

}  // namespace tessera::text
