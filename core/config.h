#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A read-only place in a parsed JSON document (config.json, generation_config.json,
/// preprocessor_config.json, ...). Every error names the file and the path of keys ("config.json:
/// vision_config.hidden_size: expected an integer"). JSON null counts as absent. Copies are cheap
/// and share the document.
class Config {
 public:
  /// An empty object.
  Config();
  /// Parses a file of at most 256 MiB and nesting of at most 64. Throws IoError, FormatError.
  static Config read(const std::filesystem::path& file);
  /// Parses text; `origin` stands for the file in error messages.
  static Config parse(std::string_view text, const std::string& origin);

  bool has(std::string_view key) const;
  /// The object or array under key; throws FormatError where it is absent.
  Config at(std::string_view key) const;
  /// The object under key, or an empty object where it is absent.
  Config child(std::string_view key) const;

  /// Values by key. With a fallback: absent (or null) gives the fallback. Without: absent is a
  /// FormatError. A value of another type, or an integer beyond int64, is a FormatError in either
  /// case.
  std::int64_t integer(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, std::string_view fallback) const;
  /// An array of integers, or one integer as an array of one; absent gives an empty list.
  std::vector<std::int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> strings(std::string_view key) const;
  /// integer() with bounds: FormatError outside [low, high]. Use it for every size that memory is
  /// taken for.
  std::int64_t bounded(std::string_view key, std::int64_t fallback, std::int64_t low,
                       std::int64_t high) const;

  /// What this place itself is.
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_integer() const;  ///< a number written without a fraction
  bool is_null() const;     ///< of an element: by key it would be absent
  bool is_boolean() const;
  /// This place's own value; FormatError where it is of another type.
  std::int64_t as_integer() const;
  double as_number() const;
  bool as_boolean() const;
  std::string as_string() const;

  /// Array elements, or an object's values, in file order.
  std::size_t size() const;
  Config operator[](std::size_t i) const;
  /// An object's keys in file order.
  std::vector<std::string> keys() const;

  /// "config.json: vision_config" for messages.
  std::string where() const;
  /// This place as JSON text.
  std::string dump() const;

 private:
  struct Node;
  std::shared_ptr<const Node> node_;
  explicit Config(std::shared_ptr<const Node> node);
};

/// The names of a classifier's classes, in order: `id2label`, else LABEL_i as HF names them.
std::vector<std::string> class_labels(const Config& config, std::int64_t classes);

}  // namespace tessera
