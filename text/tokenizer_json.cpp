#include "text/tokenizer_json.h"

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDepth = 64;

/// Builds a json value from parse events, except for what a vocabulary or merges list holds: that
/// goes straight into the document. Throws FormatError itself, so all its handlers return true.
class DocumentReader : public nlohmann::json_sax<json> {
 public:
  DocumentReader(TokenizerDocument& document, const std::string& where, bool only_vocab)
      : document_(document), where_(where) {
    if (only_vocab) vocab_depth_ = 1;
  }

  bool null() override { return scalar(json()); }
  bool boolean(bool v) override { return scalar(json(v)); }
  bool number_integer(number_integer_t v) override { return scalar(json(v)); }
  bool number_float(number_float_t v, const string_t&) override { return scalar(json(v)); }
  bool binary(binary_t&) override { return fail("binary data"); }
  bool number_unsigned(number_unsigned_t v) override {
    if (!in_vocab()) return scalar(json(v));
    if (v > kMaxTokenId) fail(concat("token id ", v, "; at most ", kMaxTokenId, " is read"));
    document_.vocab.emplace_back(std::move(key_), static_cast<std::uint32_t>(v));
    return true;
  }
  bool string(string_t& v) override {
    if (in_merges()) return merge_string(v);
    return scalar(json(std::move(v)));
  }
  bool key(string_t& v) override {
    key_ = std::move(v);
    if (depth_ == 1) model_ = key_ == "model";
    return true;
  }

  bool start_object(std::size_t) override {
    if (in_vocab() || in_merges()) fail("an object as an entry of a vocabulary or merges list");
    enter();
    if (vocab_depth_ == depth_) return document_.has_vocab = true;
    if (depth_ == 3 && model_ && key_ == "vocab") {
      vocab_depth_ = depth_;
      document_.vocab.clear();
      return document_.has_vocab = true;
    }
    open_.push_back(place(json::object()));
    return true;
  }
  bool end_object() override {
    if (in_vocab()) {
      vocab_depth_ = 0;
    } else {
      open_.pop_back();
    }
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (in_vocab() || (in_merges() && depth_ != merges_depth_))
      fail("an array as an entry of a vocabulary or merge");
    enter();
    if (in_merges()) {
      pair_.clear();
      return true;
    }
    if (depth_ == 3 && model_ && key_ == "merges") {
      merges_depth_ = depth_;
      document_.merges.clear();
      return document_.has_merges = true;
    }
    open_.push_back(place(json::array()));
    return true;
  }
  bool end_array() override {
    if (merges_depth_ != 0 && depth_ > merges_depth_) {
      if (pair_.size() != 2)
        fail(concat("merge ", document_.merges.size(), ": expected two tokens, found ",
                    pair_.size()));
      document_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    } else if (merges_depth_ != 0) {
      merges_depth_ = 0;
    } else {
      open_.pop_back();
    }
    --depth_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    throw FormatError(concat(where_, ": not valid JSON at byte ", position, ": ", e.what()));
  }

 private:
  bool in_vocab() const { return vocab_depth_ != 0 && depth_ == vocab_depth_; }
  bool in_merges() const { return merges_depth_ != 0; }
  [[noreturn]] bool fail(const std::string& what) const {
    throw FormatError(concat(where_, ": unexpected ", what));
  }

  void enter() {
    if (++depth_ > kMaxDepth)
      throw FormatError(concat(where_, ": nested deeper than ", kMaxDepth, " levels"));
  }
  json* place(json&& value) {
    if (open_.empty()) return &(document_.rest = std::move(value));
    json& parent = *open_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(value));
    return &(parent[key_] = std::move(value));
  }
  bool scalar(json&& value) {
    if (in_vocab())
      fail(concat("value of token '", key_, "': expected an id, found ", value.dump()));
    if (in_merges()) fail(concat("entry of the merges: expected strings, found ", value.dump()));
    place(std::move(value));
    return true;
  }
  bool merge_string(string_t& v) {
    if (depth_ > merges_depth_) {
      if (pair_.size() == 2)
        fail(concat("merge ", document_.merges.size(), ": more than two tokens"));
      pair_.push_back(std::move(v));
    } else if (!v.starts_with("#version")) {
      document_.merges.push_back(parse_merge(v, where_, "merge", document_.merges.size()));
    }
    return true;
  }

  TokenizerDocument& document_;
  const std::string& where_;
  std::vector<json*> open_;  // the objects and arrays around the current place
  std::vector<std::string> pair_;
  std::string key_;
  std::size_t depth_ = 0;
  std::size_t vocab_depth_ = 0;  // depth inside of the vocabulary; 0: not there
  std::size_t merges_depth_ = 0;
  bool model_ = false;  // inside of the top level's "model"
};

TokenizerDocument read(std::string_view text, const std::string& where, bool only_vocab) {
  TokenizerDocument document;
  DocumentReader reader(document, where, only_vocab);
  json::sax_parse(text.begin(), text.end(), &reader);
  return document;
}

}  // namespace

TokenizerDocument parse_tokenizer_json(std::string_view text, const std::string& where) {
  TokenizerDocument document = read(text, where, false);
  if (!document.rest.is_object()) throw FormatError(concat(where, ": expected a JSON object"));
  return document;
}

std::vector<std::pair<std::string, std::uint32_t>> parse_vocab_json(std::string_view text,
                                                                    const std::string& where) {
  TokenizerDocument document = read(text, where, true);
  if (!document.has_vocab)
    throw FormatError(concat(where, ": expected a JSON object of tokens and their ids"));
  return std::move(document.vocab);
}

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  return read(text, where, false).rest;
}

std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& where,
                                                const char* unit, std::size_t number) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
    throw FormatError(concat(where, ": ", unit, " ", number,
                             ": expected two tokens with one space between, found '", line, "'"));
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

void JsonView::fail(const char* expected) const {
  std::string found = value_->dump(-1, ' ', false, json::error_handler_t::replace);
  if (found.size() > 60) found = found.substr(0, 60) + "...";
  throw FormatError(concat(where_, ": expected ", expected, ", found ", found));
}

bool JsonView::has(const char* key) const {
  return value_->is_object() && value_->contains(key) && !(*value_)[key].is_null();
}

JsonView JsonView::at(const char* key) const {
  if (!value_->is_object()) fail("an object");
  if (!has(key)) throw FormatError(concat(where_, ": '", key, "' is missing"));
  return {(*value_)[key], concat(where_, ".", key)};
}

std::string JsonView::as_string() const {
  if (!value_->is_string()) fail("a string");
  return value_->get<std::string>();
}

std::int64_t JsonView::as_integer(std::int64_t high) const {
  if (!value_->is_number_unsigned() ||
      value_->get<std::uint64_t>() > static_cast<std::uint64_t>(high))
    fail(concat("an integer from 0 to ", high).c_str());
  return value_->get<std::int64_t>();
}

std::string JsonView::string(const char* key) const { return at(key).as_string(); }

std::optional<std::string> JsonView::optional_string(const char* key) const {
  if (!has(key)) return std::nullopt;
  return string(key);
}

bool JsonView::boolean(const char* key) const {
  const JsonView v = at(key);
  if (!v.value_->is_boolean()) v.fail("true or false");
  return v.value_->get<bool>();
}

bool JsonView::boolean(const char* key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}

std::int64_t JsonView::integer(const char* key, std::int64_t high) const {
  return at(key).as_integer(high);
}

char32_t JsonView::character(const char* key) const {
  const JsonView v = at(key);
  const std::string text = v.as_string();
  if (text.empty() || char_length(static_cast<unsigned char>(text[0])) != text.size())
    v.fail("one character");
  std::size_t at = 0;
  return next_char(text, at);
}

std::vector<JsonView> JsonView::elements(const char* key) const {
  const JsonView list = at(key);
  if (!list.value_->is_array()) list.fail("an array");
  std::vector<JsonView> out;
  for (const json& element : *list.value_)
    out.emplace_back(element, concat(list.where_, "[", out.size(), "]"));
  return out;
}

std::vector<std::pair<std::string, JsonView>> JsonView::items() const {
  if (!value_->is_object()) fail("an object");
  std::vector<std::pair<std::string, JsonView>> out;
  for (const auto& [key, element] : value_->items())
    out.emplace_back(key, JsonView(element, concat(where_, ".", key)));
  return out;
}

}  // namespace tessera::text
