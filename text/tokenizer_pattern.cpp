#include "text/tokenizer_pattern.h"

namespace tessera::text {

Pattern::Pattern(const JsonView& json) {
  if (json.has("String")) {
    literal_ = json.string("String");
    if (literal_.empty()) regex_.emplace("", json.where());  // matches between all characters
  } else {
    expression_ = json.string("Regex");
    regex_.emplace(expression_, json.where());
  }
}

std::vector<TextPart> Pattern::parts(std::string_view text) const {
  return regex_ ? regex_->parts(text) : literal_parts(text, literal_);
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  std::string out;
  out.reserve(text.size());
  for (const TextPart& part : parts(text))
    out.append(part.match ? content : text.substr(part.begin, part.end - part.begin));
  return out;
}

}  // namespace tessera::text
