#include "text/tokenizer_normalizer.h"

#include "core/error.h"
#include "text/tokenizer_pattern.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

std::string strip(std::string_view text, bool left, bool right) {
  const CharClasses& classes = CharClasses::get();
  std::size_t begin = 0, end = text.size();
  while (left && begin < end) {
    std::size_t next = begin;
    if (!classes.is(next_char(text, next), CharClasses::kSpace)) break;
    begin = next;
  }
  while (right && begin < end) {
    std::size_t previous = end;
    if (!classes.is(previous_char(text, previous), CharClasses::kSpace)) break;
    end = previous;
  }
  return std::string(text.substr(begin, end - begin));
}

std::string strip_accents(std::string_view text) {
  const CharClasses& classes = CharClasses::get();
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (!classes.is(next_char(text, at), CharClasses::kMark)) out.append(text, begin, at - begin);
  }
  return out;
}

}  // namespace

Normalizer::Normalizer(const JsonView& json) { add(json); }

void Normalizer::add(const JsonView& json) {
  const std::string type = json.string("type");
  const auto form = [&](NormalForm f) {
    steps_.emplace_back([f](std::string_view text) { return normalize(text, f); });
  };
  if (type == "Sequence") {
    for (const JsonView& element : json.elements("normalizers")) add(element);
  } else if (type == "NFC") {
    form(NormalForm::nfc);
  } else if (type == "NFD") {
    form(NormalForm::nfd);
  } else if (type == "NFKC") {
    form(NormalForm::nfkc);
  } else if (type == "NFKD") {
    form(NormalForm::nfkd);
  } else if (type == "Lowercase") {
    steps_.emplace_back(lowercase);
  } else if (type == "StripAccents") {
    steps_.emplace_back(strip_accents);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(byte_level);
  } else if (type == "Strip") {
    steps_.emplace_back([left = json.boolean("strip_left"), right = json.boolean("strip_right")](
                            std::string_view text) { return strip(text, left, right); });
  } else if (type == "Prepend") {
    steps_.emplace_back([prefix = json.string("prepend")](std::string_view text) {
      return text.empty() ? std::string() : concat(prefix, text);
    });
  } else if (type == "Replace") {
    steps_.emplace_back([pattern = Pattern(json.at("pattern")), content = json.string("content")](
                            std::string_view text) { return pattern.replace(text, content); });
  } else {
    throw UnsupportedError(
        concat(json.where(), ": normalizer type '", type,
               "' is not supported; known are NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, "
               "ByteLevel, Strip, Prepend, Replace and Sequence"));
  }
}

std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const auto& step : steps_) out = step(out);
  return out;
}

}  // namespace tessera::text
