#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace tessera::text::jinja {

struct List;
struct Dict;
struct Function;
struct Loop;

/// A name or key that nothing was found under; null where there is no name to tell.
struct Undefined {
  std::shared_ptr<const std::string> name;
};
struct None {};
using Text = std::shared_ptr<const std::string>;  // valid UTF-8, never null

/// What templates compute with, as Python has it. Containers belong to the Runtime, so that ones
/// that hold themselves (by a namespace) are no leak.
using Value =
    std::variant<Undefined, None, bool, std::int64_t, double, Text, List*, Dict*, Function*, Loop*>;
using Values = std::vector<Value>;

struct List {
  Values items;
  bool tuple = false;
};

/// Members in their order.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  bool is_namespace = false;
};

/// The variable `loop`.
struct Loop {
  Values items;
  std::size_t at = 0;
  Values changed = {};
};

struct Args {
  Values list;
  std::vector<std::pair<std::string, Value>> named;

  /// The argument that is the i-th one or has that name; null where it was not given.
  const Value* find(std::size_t i, std::string_view name) const;
};

class Runtime;
struct Function {
  std::string name;
  std::function<Value(Runtime&, const Args&)> call;
};

/// Owns what a rendering makes, and bounds what it may cost. Everything here throws FormatError
/// naming the template and its line.
class Runtime {
 public:
  static constexpr std::size_t kMostSteps = 5'000'000;
  static constexpr std::size_t kMostBytes = std::size_t{256} << 20;  // of all that is made

  explicit Runtime(std::string origin) : origin_(std::move(origin)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  std::uint32_t line = 1;  ///< where the template is at

  [[noreturn]] void fail(const std::string& message) const;
  void spend(std::size_t steps);
  void take(std::size_t bytes);
  /// Steps that looking for `wanted` bytes in `all` takes.
  void spend_search(std::size_t all, std::size_t wanted) { spend(all * wanted / 1024 + all / 64); }

  Value text(std::string made);
  Value list(Values items, bool tuple = false);
  Dict* dict(bool is_namespace = false);
  Value function(std::string name, std::function<Value(Runtime&, const Args&)> call);
  Loop* loop(Values items);

 private:
  std::string origin_;
  std::size_t steps_ = 0, bytes_ = 0;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Function> functions_;
  std::deque<Loop> loops_;
};

const std::string* as_text(const Value& value);                 ///< null: something else
const std::string& need_text(Runtime& rt, const Value& value);  ///< of the value, not a copy
std::int64_t need_integer(Runtime& rt, const Value& value);
bool is_undefined(const Value& value);
bool is_none(const Value& value);
/// "an integer", "a string", ... for messages.
const char* kind_of(const Value& value);

bool truth(const Value& value);
/// As Python's str() and repr().
std::string str(Runtime& rt, const Value& value);
std::string repr(Runtime& rt, const Value& value);
/// As Python's json.dumps.
struct JsonStyle {
  bool ascii = false, indented = false, sorted = false;
  std::string indent, between = ", ", colon = ": ";
};
std::string to_json(Runtime& rt, const Value& value, const JsonStyle& style);

bool equal(Runtime& rt, const Value& a, const Value& b);
/// Less than 0, 0, or more; fails where they have no order.
int order(Runtime& rt, const Value& a, const Value& b);
bool contains(Runtime& rt, const Value& container, const Value& item);
/// What a loop goes through: elements, keys, characters, nothing of what is undefined.
Values elements(Runtime& rt, const Value& value);
/// By len(); fails where there is none.
std::int64_t length(Runtime& rt, const Value& value);
const Value* find(Runtime& rt, const Dict& dict, const Value& key);
void assign(Runtime& rt, Dict& dict, const Value& key, Value value);

/// Characters of a text.
std::vector<std::string_view> characters(std::string_view text);
/// Whether Python's str.isspace() holds of a character.
bool is_space(std::string_view character);
std::string_view strip(std::string_view text, bool left, bool right, const std::string* of);
std::string number_text(double value);

}  // namespace tessera::text::jinja
