#include "text/tokenizer_regex.h"

#include <oniguruma.h>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

constexpr std::size_t kMaxPattern = 1 << 16;
constexpr unsigned long kMaxMatchSteps =
    10'000'000;  // backtracking steps from one position, as HF's
constexpr unsigned long kMaxSearchSteps = 100'000'000;

std::string message_of(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length =
      info ? onig_error_code_to_str(text, code, info) : onig_error_code_to_str(text, code);
  return std::string(reinterpret_cast<const char*>(text), static_cast<std::size_t>(length));
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};
struct FreeMatchParam {
  void operator()(OnigMatchParam* param) const { onig_free_match_param(param); }
};

}  // namespace

void initialize_regex() {
  static const int result = [] {
    OnigEncoding encoding = ONIG_ENCODING_UTF8;
    return onig_initialize(&encoding, 1);
  }();
  if (result != ONIG_NORMAL)
    throw Error(concat("Oniguruma does not start: ", message_of(result, nullptr)));
}

struct Regex::Compiled {
  regex_t* regex = nullptr;
  ~Compiled() { onig_free(regex); }
};

Regex::Regex(const std::string& pattern, const std::string& where) : where_(where) {
  initialize_regex();
  if (pattern.size() > kMaxPattern)
    throw FormatError(concat(where, ": a pattern of ", pattern.size(), " bytes; at most ",
                             kMaxPattern, " are read"));
  auto compiled = std::make_shared<Compiled>();
  const auto* begin = reinterpret_cast<const OnigUChar*>(pattern.data());
  OnigErrorInfo info{};
  const int result = onig_new(&compiled->regex, begin, begin + pattern.size(), ONIG_OPTION_NONE,
                              ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (result != ONIG_NORMAL)
    throw FormatError(
        concat(where, ": not a regular expression (", message_of(result, &info), "): ", pattern));
  compiled_ = std::move(compiled);
}

template <class Visit>
void Regex::search(std::string_view text, Visit visit) const {
  const std::unique_ptr<OnigRegion, FreeRegion> region(onig_region_new());
  const std::unique_ptr<OnigMatchParam, FreeMatchParam> limits(onig_new_match_param());
  onig_initialize_match_param(limits.get());
  onig_set_retry_limit_in_match_of_match_param(limits.get(), kMaxMatchSteps);
  onig_set_retry_limit_in_search_of_match_param(limits.get(), kMaxSearchSteps);
  const auto* begin = reinterpret_cast<const OnigUChar*>(text.data());
  const OnigUChar* end = begin + text.size();

  std::size_t covered = 0, from = 0;
  bool any = false;
  while (from <= text.size()) {
    const int result = onig_search_with_param(compiled_->regex, begin, end, begin + from, end,
                                              region.get(), ONIG_OPTION_NONE, limits.get());
    if (result == ONIG_MISMATCH) break;
    if (result < 0)
      throw FormatError(concat(where_, ": matching failed: ", message_of(result, nullptr)));
    const auto match_begin = static_cast<std::size_t>(region->beg[0]);
    const auto match_end = static_cast<std::size_t>(region->end[0]);
    if (match_begin == match_end && any && match_end == covered) {
      // An empty match right behind the last one does not count; go on one character later.
      from += from < text.size() ? char_length(static_cast<unsigned char>(text[from])) : 1;
      continue;
    }
    visit(*region);
    from = covered = match_end;
    any = true;
  }
}

std::vector<TextPart> Regex::parts(std::string_view text) const {
  if (text.empty()) return {{0, 0, false}};
  std::vector<TextPart> parts;
  std::size_t covered = 0;
  search(text, [&](const OnigRegion& region) {
    const auto begin = static_cast<std::size_t>(region.beg[0]),
               end = static_cast<std::size_t>(region.end[0]);
    if (covered != begin) parts.push_back({covered, begin, false});
    parts.push_back({begin, end, true});
    covered = end;
  });
  if (covered != text.size()) parts.push_back({covered, text.size(), false});
  return parts;
}

std::string Regex::replace(std::string_view text, std::string_view replacement) const {
  std::string out;
  std::size_t covered = 0;
  search(text, [&](const OnigRegion& region) {
    const auto group = [&](int i) {
      if (i >= region.num_regs || region.beg[i] < 0) return std::string_view();
      return text.substr(static_cast<std::size_t>(region.beg[i]),
                         static_cast<std::size_t>(region.end[i] - region.beg[i]));
    };
    const auto begin = static_cast<std::size_t>(region.beg[0]);
    out += text.substr(covered, begin - covered);
    for (std::size_t i = 0; i < replacement.size(); ++i) {
      const bool reference = replacement[i] == '\\' && i + 1 < replacement.size();
      if (reference) {
        out += group(replacement[++i] - '0');
      } else {
        out += replacement[i];
      }
    }
    covered = static_cast<std::size_t>(region.end[0]);
  });
  out += text.substr(covered);
  return out;
}

std::vector<TextPart> literal_parts(std::string_view text, std::string_view literal) {
  if (text.empty()) return {{0, 0, false}};
  std::vector<TextPart> parts;
  std::size_t covered = 0;
  for (std::size_t at; (at = text.find(literal, covered)) != std::string_view::npos;) {
    if (covered != at) parts.push_back({covered, at, false});
    covered = at + literal.size();
    parts.push_back({at, covered, true});
  }
  if (covered != text.size()) parts.push_back({covered, text.size(), false});
  return parts;
}

}  // namespace tessera::text
