#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

/// Makes the regular expression library ready; called by whoever uses it directly.
void initialize_regex();

/// Part of a text, and whether the pattern matched it. Parts are in order and cover the text.
struct TextPart {
  std::size_t begin;
  std::size_t end;
  bool match;
};

/// A regular expression of tokenizer.json, by the library HF tokenizers use (Oniguruma, its default
/// syntax). Const and shared.
class Regex {
 public:
  /// `where` stands for its place in error messages. Throws FormatError.
  Regex(const std::string& pattern, const std::string& where);
  /// All of text, matched parts and those between. Throws FormatError where the pattern needs too
  /// many steps.
  std::vector<TextPart> parts(std::string_view text) const;
  /// Every match replaced; \1 to \9 in `replacement` stand for what the groups matched. Throws as
  /// parts().
  std::string replace(std::string_view text, std::string_view replacement) const;

 private:
  struct Compiled;
  /// visit(region) for each match in order; an empty one right behind another does not count.
  template <class Visit>
  void search(std::string_view text, Visit visit) const;
  std::shared_ptr<const Compiled> compiled_;
  std::string where_;
};

/// The same parts for a literal string. `literal` must not be empty.
std::vector<TextPart> literal_parts(std::string_view text, std::string_view literal);

}  // namespace tessera::text
