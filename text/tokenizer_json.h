#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::text {

/// A place in a parsed JSON document that knows its path for error messages. JSON null counts as
/// absent.
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string where)
      : value_(&value), where_(std::move(where)) {}

  bool has(const char* key) const;
  /// The value under key; FormatError where it is absent.
  JsonView at(const char* key) const;
  std::string string(const char* key) const;
  std::optional<std::string> optional_string(const char* key) const;
  bool boolean(const char* key) const;
  bool boolean(const char* key, bool fallback) const;
  /// Not negative and at most `high`.
  std::int64_t integer(const char* key, std::int64_t high) const;
  /// A string of exactly one character.
  char32_t character(const char* key) const;

  const nlohmann::json& value() const { return *value_; }
  bool is_string() const { return value_->is_string(); }
  bool is_object() const { return value_->is_object(); }
  std::string as_string() const;
  std::int64_t as_integer(std::int64_t high) const;
  /// The elements of an array under key.
  std::vector<JsonView> elements(const char* key) const;
  /// This object's keys and values.
  std::vector<std::pair<std::string, JsonView>> items() const;
  const std::string& where() const { return where_; }

 private:
  [[noreturn]] void fail(const char* expected) const;
  const nlohmann::json* value_;
  std::string where_;
};

/// tokenizer.json with the two large parts of its model taken out of the document.
struct TokenizerDocument {
  nlohmann::json rest;                                       ///< everything else
  std::vector<std::pair<std::string, std::uint32_t>> vocab;  ///< model.vocab in file order
  std::vector<std::pair<std::string, std::string>> merges;   ///< model.merges in file order
  bool has_vocab = false;
  bool has_merges = false;
};

constexpr std::uint32_t kMaxTokenId = (1u << 22) - 1;

/// Throws FormatError naming `where`, for deep nesting, too.
TokenizerDocument parse_tokenizer_json(std::string_view text, const std::string& where);
/// A JSON object of {token: id}.
std::vector<std::pair<std::string, std::uint32_t>> parse_vocab_json(std::string_view text,
                                                                    const std::string& where);
/// Other files of a checkpoint.
nlohmann::json parse_json(std::string_view text, const std::string& where);
/// One merge, "left right", which is the `number`-th `unit` (merge, line) of where.
std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& where,
                                                const char* unit, std::size_t number);

}  // namespace tessera::text
