#include "text/tokenizer_decoder_stages.h"

#include <charconv>
#include <optional>
#include <utility>

namespace tessera::text::stages {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// The byte that <0xNN> names.
std::optional<unsigned char> named_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  const auto result = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (result.ptr != token.data() + 5) return std::nullopt;
  return static_cast<unsigned char>(value);
}

/// The length of the longest end of text that a literal may begin with (but not all of the
/// literal).
std::size_t begun(std::string_view text, std::string_view literal) {
  for (std::size_t n = std::min(text.size(), literal.size() - 1); n != 0; --n)
    if (text.ends_with(literal.substr(0, n))) return n;
  return 0;
}

}  // namespace

void ByteLevel::token(std::string_view whole) {
  const std::size_t before = bytes_.size();
  for (std::size_t at = 0; at < whole.size();) {
    const int byte = char_to_byte(next_char(whole, at));
    if (byte < 0) {
      bytes_.resize(before);
      bytes_ += whole;
      break;
    }
    bytes_.push_back(static_cast<char>(byte));
  }
  std::string_view left = bytes_;
  while (!left.empty()) {
    const std::size_t good = valid_utf8_prefix(left);
    if (good != 0) next_.text(left.substr(0, good));
    left.remove_prefix(good);
    if (left.empty()) break;
    const Utf8Part part = utf8_part(left, 0);
    if (part.incomplete) break;
    next_.text(kReplacement);
    left.remove_prefix(part.length);
  }
  bytes_.erase(0, bytes_.size() - left.size());
}

void ByteLevel::finish() {
  if (!bytes_.empty()) next_.text(kReplacement);
  bytes_.clear();
  next_.end_token();
  next_.finish();
}

void ByteFallback::token(std::string_view whole) {
  if (const auto byte = named_byte(whole)) {
    bytes_.push_back(static_cast<char>(*byte));
    return;
  }
  give_bytes();
  give(whole);
}

void ByteFallback::give_bytes() {
  if (bytes_.empty()) return;
  if (valid_utf8_prefix(bytes_) == bytes_.size()) {
    give(bytes_);
  } else {
    for (std::size_t i = 0; i < bytes_.size(); ++i) give(kReplacement);
  }
  bytes_.clear();
}

void ByteFallback::finish() {
  give_bytes();
  next_.finish();
}

void BpeSuffix::give_held(std::string_view replacement) {
  if (!holds_) return;
  std::string out;
  for (const TextPart& part : literal_parts(held_, suffix_))
    out.append(part.match ? replacement
                          : std::string_view(held_).substr(part.begin, part.end - part.begin));
  give(out);
}

void BpeSuffix::token(std::string_view whole) {
  give_held(" ");
  held_ = whole;
  holds_ = true;
}

void BpeSuffix::finish() {
  give_held("");
  holds_ = false;
  next_.finish();
}

void ReplaceLiteral::text(std::string_view part) {
  held_ += part;
  std::size_t done = 0;
  for (std::size_t at; (at = held_.find(literal_, done)) != std::string::npos;
       done = at + literal_.size()) {
    if (at != done) next_.text(std::string_view(held_).substr(done, at - done));
    if (!content_.empty()) next_.text(content_);
  }
  const std::size_t keep = begun(std::string_view(held_).substr(done), literal_);
  const std::size_t end = held_.size() - keep;
  if (end != done) next_.text(std::string_view(held_).substr(done, end - done));
  held_.erase(0, end);
}

void ReplaceLiteral::end_token() {
  if (!held_.empty()) next_.text(held_);
  held_.clear();
  next_.end_token();
}

void Metaspace::text(std::string_view part) {
  for (const TextPart& piece : literal_parts(part, mark_)) {
    if (!piece.match) {
      next_.text(part.substr(piece.begin, piece.end - piece.begin));
    } else if (!drop_) {
      next_.text(" ");
    }
  }
}

void Strip::text(std::string_view part) {
  while (to_cut_ > 0 && part.starts_with(character_)) {
    part.remove_prefix(character_.size());
    --to_cut_;
  }
  if (part.empty()) return;
  to_cut_ = 0;
  std::string_view body = part;
  std::int64_t at_end = 0;
  while (at_end < stop_ && body.ends_with(character_))
    body.remove_suffix(character_.size()), ++at_end;
  if (!body.empty()) {
    for (; held_ > 0; --held_) next_.text(character_);
    next_.text(body);
  }
  for (held_ += at_end; held_ > stop_; --held_) next_.text(character_);
}

void Strip::end_token() {
  held_ = 0;
  to_cut_ = start_;
  next_.end_token();
}

}  // namespace tessera::text::stages
