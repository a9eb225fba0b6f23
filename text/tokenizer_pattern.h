#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_regex.h"

namespace tessera::text {

/// {"String": "..."} or {"Regex": "..."}, as Split and Replace have it.
class Pattern {
 public:
  explicit Pattern(const JsonView& json);
  std::vector<TextPart> parts(std::string_view text) const;
  /// text with `content` in the place of every match.
  std::string replace(std::string_view text, std::string_view content) const;
  /// What the pattern matches where it is a plain string, else "".
  const std::string& literal() const { return literal_; }
  /// The source of a regular expression, else "".
  const std::string& expression() const { return expression_; }

 private:
  std::string literal_;
  std::string expression_;
  std::optional<Regex> regex_;
};

}  // namespace tessera::text
