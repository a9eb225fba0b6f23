#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tessera::json {

struct Object;
struct Value;
using Array = std::vector<Value>;

/// An integer that int64 can't hold.
struct HugeInteger {
  double value;
};

/// A JSON value, 16 bytes large.
struct Value {
  std::variant<std::nullptr_t, bool, std::int64_t, HugeInteger, double,
               std::unique_ptr<std::string>, std::unique_ptr<Array>, std::unique_ptr<Object>>
      data = nullptr;

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(data); }
  const std::string* string() const;
  const Array* array() const;
  const Object* object() const;
  /// "an integer", "a string", ... for messages.
  const char* kind() const;
};

/// Members in the order of the text; found by key in logarithmic time.
struct Object {
  std::vector<std::string> keys;
  std::vector<Value> values;
  std::vector<std::uint32_t> by_key;  // positions, sorted by key

  /// Null where there is no such key.
  const Value* find(std::string_view key) const;
};

enum class Duplicates { last_wins, rejected };

constexpr int kMaxDepth = 64;
/// Values in one text: bounds the memory that hostile text can take.
constexpr std::size_t kMaxValues = std::size_t{1} << 24;

/// Parses a whole text; `origin` stands for the file in messages. Throws FormatError.
Value parse(std::string_view text, const std::string& origin, Duplicates duplicates);

/// The value as JSON text.
std::string dump(const Value& value);

}  // namespace tessera::json
