#include "text/tokenizer_pretokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer_unicode.h"
#include "text/tokenizer_words.h"

namespace tessera::text {
namespace {

/// Every character of these classes is a match.
std::vector<TextPart> class_parts(std::string_view text, std::uint8_t wanted) {
  const CharClasses& classes = CharClasses::get();
  std::vector<TextPart> parts;
  std::size_t covered = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (!classes.is(next_char(text, at), wanted)) continue;
    if (covered != begin) parts.push_back({covered, begin, false});
    parts.push_back({begin, at, true});
    covered = at;
  }
  if (covered != text.size()) parts.push_back({covered, text.size(), false});
  return parts;
}

/// Runs of word characters and runs of other characters are no matches; the white space between
/// them is.
std::vector<TextPart> word_parts(std::string_view text) {
  const CharClasses& classes = CharClasses::get();
  const auto kind = [&](std::size_t at, std::size_t& next) {
    next = at;
    return classes.of(next_char(text, next)) & (CharClasses::kWord | CharClasses::kSpace);
  };
  std::vector<TextPart> parts;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = 0, next = 0;
    const int first = kind(at, end);
    while (end < text.size() && kind(end, next) == first) end = next;
    parts.push_back({at, end, (first & CharClasses::kSpace) != 0});
    at = end;
  }
  return parts;
}

std::vector<TextPart> fixed_parts(std::string_view text, std::size_t length) {
  std::vector<TextPart> parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    for (std::size_t i = 0; i < length && at < text.size(); ++i) next_char(text, at);
    parts.push_back({begin, at, false});
  }
  return parts;
}

SplitBehavior behavior_of(const JsonView& json) {
  const std::string name = json.as_string();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  throw FormatError(concat(
      json.where(),
      ": expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, found '",
      name, "'"));
}

/// Joins parts as the behavior wants; what is still marked as a match is removed.
std::vector<TextPart> apply(SplitBehavior behavior, std::vector<TextPart> parts) {
  if (behavior == SplitBehavior::removed) return parts;
  const bool backwards = behavior == SplitBehavior::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<TextPart> out;
  out.reserve(parts.size());
  bool previous_match = false;
  for (const TextPart& part : parts) {
    bool join = false;
    if (behavior == SplitBehavior::contiguous)
      join = part.match == previous_match;
    else if (behavior != SplitBehavior::isolated)
      join = part.match && !previous_match;
    if (join && !out.empty()) {
      out.back().begin = std::min(out.back().begin, part.begin);
      out.back().end = std::max(out.back().end, part.end);
    } else {
      out.push_back({part.begin, part.end, false});
    }
    previous_match = part.match;
  }
  if (backwards) std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

PreTokenizer::PreTokenizer(const JsonView& json) { add(json); }

PreTokenizer PreTokenizer::gpt2(bool add_prefix_space) {
  PreTokenizer out;
  out.add_byte_level(add_prefix_space, true);
  return out;
}

void PreTokenizer::operator()(Pieces& pieces) const {
  for (const auto& step : steps_) step(pieces);
}

void PreTokenizer::add_split(Split split, SplitBehavior behavior) {
  write_out_bytes();
  steps_.emplace_back([split = std::move(split), behavior](Pieces& pieces) {
    std::vector<Pieces::Piece> out;
    for (const Pieces::Piece& piece : pieces.pieces)
      for (const TextPart& part : apply(behavior, split(pieces.of(piece))))
        if (!part.match && part.begin != part.end)
          out.push_back({piece.begin + part.begin, piece.begin + part.end,
                         piece.at_start && part.begin == 0});
    pieces.pieces = std::move(out);
  });
}

void PreTokenizer::write_out_bytes() {
  if (!byte_level_pending_) return;
  byte_level_pending_ = false;
  add_change([](std::string_view text, bool) { return byte_level(text); });
}

void PreTokenizer::add_change(std::function<std::string(std::string_view, bool)> change) {
  write_out_bytes();
  steps_.emplace_back([change = std::move(change)](Pieces& pieces) {
    std::string text;
    for (Pieces::Piece& piece : pieces.pieces) {
      const std::string changed = change(pieces.of(piece), piece.at_start);
      piece = {text.size(), text.size() + changed.size(), piece.at_start};
      text += changed;
    }
    pieces.text = std::move(text);
  });
}

void PreTokenizer::add_byte_level(bool add_prefix_space, bool use_regex) {
  if (add_prefix_space)
    add_change([](std::string_view text, bool) {
      return text.empty() || text.front() == ' ' ? std::string(text) : concat(' ', text);
    });
  if (use_regex) add_split(gpt2_words, SplitBehavior::isolated);
  write_out_bytes();
  byte_level_pending_ = true;
}

void PreTokenizer::add_metaspace(const JsonView& json) {
  std::string mark;
  append_char(mark, json.character("replacement"));
  const std::string scheme = json.optional_string("prepend_scheme").value_or("always");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    throw FormatError(concat(
        json.where(), ".prepend_scheme: expected always, first or never, found '", scheme, "'"));
  if (!json.boolean("add_prefix_space", true) && scheme != "never")
    throw FormatError(
        concat(json.where(), ": add_prefix_space is false, but prepend_scheme is '", scheme, "'"));
  add_change([mark, scheme](std::string_view text, bool at_start) {
    std::string out;
    for (const TextPart& part : literal_parts(text, " "))
      out.append(part.match ? std::string_view(mark)
                            : text.substr(part.begin, part.end - part.begin));
    const bool wanted = scheme == "always" || (scheme == "first" && at_start);
    return wanted && !out.empty() && !out.starts_with(mark) ? mark + out : out;
  });
  if (json.boolean("split", true))
    add_split([mark](std::string_view text) { return literal_parts(text, mark); },
              SplitBehavior::merged_with_next);
}

void PreTokenizer::add(const JsonView& json) {
  const std::string type = json.string("type");
  const auto split_class = [&](std::uint8_t classes, SplitBehavior behavior) {
    add_split([classes](std::string_view text) { return class_parts(text, classes); }, behavior);
  };
  if (type == "Sequence") {
    for (const JsonView& element : json.elements("pretokenizers")) add(element);
  } else if (type == "ByteLevel") {
    add_byte_level(json.boolean("add_prefix_space"), json.boolean("use_regex", true));
  } else if (type == "Metaspace") {
    add_metaspace(json);
  } else if (type == "Split") {
    const Pattern pattern(json.at("pattern"));
    const bool invert = json.boolean("invert");
    const WordMatcher matcher = word_matcher(pattern.expression());
    add_split(
        [pattern, invert, matcher](std::string_view text) {
          std::vector<TextPart> parts = matcher ? matcher(text) : pattern.parts(text);
          if (invert)
            for (TextPart& part : parts) part.match = !part.match;
          return parts;
        },
        behavior_of(json.at("behavior")));
  } else if (type == "Whitespace") {
    add_split(word_parts, SplitBehavior::removed);
  } else if (type == "WhitespaceSplit") {
    split_class(CharClasses::kSpace, SplitBehavior::removed);
  } else if (type == "BertPreTokenizer") {
    split_class(CharClasses::kSpace, SplitBehavior::removed);
    split_class(CharClasses::kPunctuation, SplitBehavior::isolated);
  } else if (type == "Punctuation") {
    split_class(CharClasses::kPunctuation,
                json.has("behavior") ? behavior_of(json.at("behavior")) : SplitBehavior::isolated);
  } else if (type == "Digits") {
    split_class(CharClasses::kNumber, json.boolean("individual_digits")
                                          ? SplitBehavior::isolated
                                          : SplitBehavior::contiguous);
  } else if (type == "CharDelimiterSplit") {
    std::string delimiter;
    append_char(delimiter, json.character("delimiter"));
    add_split([delimiter](std::string_view text) { return literal_parts(text, delimiter); },
              SplitBehavior::removed);
  } else if (type == "FixedLength") {
    const std::int64_t length = json.has("length") ? json.integer("length", 1 << 30) : 5;
    if (length == 0)
      throw FormatError(concat(json.where(), ".length: expected at least 1, found 0"));
    add_split(
        [length](std::string_view text) {
          return fixed_parts(text, static_cast<std::size_t>(length));
        },
        SplitBehavior::isolated);
  } else {
    throw UnsupportedError(concat(json.where(), ": pre_tokenizer type '", type,
                                  "' is not supported; known are "
                                  "ByteLevel, Metaspace, Split, Whitespace, WhitespaceSplit, "
                                  "BertPreTokenizer, Punctuation, Digits, "
                                  "CharDelimiterSplit, FixedLength and Sequence"));
  }
}

}  // namespace tessera::text
