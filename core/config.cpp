#include "core/config.h"

#include <cmath>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "core/json.h"

namespace tessera {
namespace {

constexpr std::uintmax_t kMaxFileBytes = std::uintmax_t{256} << 20;

std::string read_text(const std::filesystem::path& file) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(file, error);
  if (error) throw IoError(concat(file.string(), ": can't be read: ", error.message()));
  if (bytes > kMaxFileBytes) {
    throw FormatError(
        concat(file.string(), ": ", bytes, " bytes; at most ", kMaxFileBytes, " are read as JSON"));
  }
  std::string text(static_cast<std::size_t>(bytes), '\0');
  std::ifstream in(file, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(bytes)))
    throw IoError(concat(file.string(), ": can't be read"));
  return text;
}

/// The document, kept alive by its values, with the name it has in messages.
struct Document {
  std::string origin;
  json::Value root;
};

}  // namespace

struct Config::Node {
  std::shared_ptr<const Document> document;
  const json::Value* value;
  std::string path;

  std::string path_to(std::string_view key) const {
    return path + (path.empty() ? "" : ".") + std::string(key);
  }
  std::string where() const {
    return path.empty() ? document->origin : document->origin + ": " + path;
  }
  std::string where(std::string_view key) const { return document->origin + ": " + path_to(key); }
  /// The member `key`, null where it is absent or null.
  const json::Value* find(std::string_view key) const {
    const json::Object* object = value->object();
    if (!object) throw FormatError(concat(where(), ": expected an object, found ", value->kind()));
    const json::Value* member = object->find(key);
    return member && !member->is_null() ? member : nullptr;
  }
  const json::Value& need(std::string_view key) const {
    const json::Value* member = find(key);
    if (!member) throw FormatError(concat(where(key), ": is missing"));
    return *member;
  }
};

namespace {

using json::Value;

/// Makes the place's name for a message.
using Where = std::function<std::string()>;

std::int64_t to_integer(const Value& value, const Where& where) {
  if (const auto* n = std::get_if<std::int64_t>(&value.data)) return *n;
  constexpr double kExact = 9007199254740992.0;  // 2^53
  const auto* number = std::get_if<double>(&value.data);
  if (number && std::abs(*number) <= kExact && std::trunc(*number) == *number)
    return static_cast<std::int64_t>(*number);
  if (std::holds_alternative<json::HugeInteger>(value.data))
    throw FormatError(concat(where(), ": the integer ", json::dump(value), " is out of range"));
  throw FormatError(concat(where(), ": expected an integer, found ", value.kind(),
                           number ? " (" + json::dump(value) + ")" : ""));
}

double to_number(const Value& value, const Where& where) {
  if (const auto* n = std::get_if<double>(&value.data)) return *n;
  if (const auto* n = std::get_if<std::int64_t>(&value.data)) return static_cast<double>(*n);
  if (const auto* n = std::get_if<json::HugeInteger>(&value.data)) return n->value;
  throw FormatError(concat(where(), ": expected a number, found ", value.kind()));
}

bool to_boolean(const Value& value, const Where& where) {
  if (const bool* flag = std::get_if<bool>(&value.data)) return *flag;
  throw FormatError(concat(where(), ": expected true or false, found ", value.kind()));
}

std::string to_string(const Value& value, const Where& where) {
  if (const std::string* text = value.string()) return *text;
  throw FormatError(concat(where(), ": expected a string, found ", value.kind()));
}

/// The elements of an array, or one value as a list of one; empty where `value` is null.
template <class T>
std::vector<T> to_list(const Value* value, const Where& where,
                       T (*convert)(const Value&, const Where&)) {
  if (!value) return {};
  const json::Array* array = value->array();
  if (!array) return {convert(*value, where)};
  std::vector<T> list;
  list.reserve(array->size());
  for (const Value& element : *array) {
    list.push_back(
        convert(element, [&] { return where() + "[" + std::to_string(list.size()) + "]"; }));
  }
  return list;
}

}  // namespace

Config::Config(std::shared_ptr<const Node> node) : node_(std::move(node)) {}

Config::Config() : Config(parse("{}", "(empty)")) {}

Config Config::read(const std::filesystem::path& file) {
  return parse(read_text(file), file.string());
}

Config Config::parse(std::string_view text, const std::string& origin) {
  if (text.size() > kMaxFileBytes) {
    throw FormatError(
        concat(origin, ": ", text.size(), " bytes; at most ", kMaxFileBytes, " are read as JSON"));
  }
  auto document = std::make_shared<Document>();
  document->origin = origin;
  document->root = json::parse(text, origin, json::Duplicates::last_wins);
  const Value* root = &document->root;
  return Config(std::make_shared<Node>(Node{std::move(document), root, {}}));
}

bool Config::has(std::string_view key) const { return is_object() && node_->find(key); }

Config Config::at(std::string_view key) const {
  return Config(
      std::make_shared<Node>(Node{node_->document, &node_->need(key), node_->path_to(key)}));
}

Config Config::child(std::string_view key) const {
  static const Value kEmpty{std::make_unique<json::Object>()};
  const Value* member = node_->find(key);
  if (member && !member->object()) {
    throw FormatError(concat(node_->where(key), ": expected an object, found ", member->kind()));
  }
  return Config(std::make_shared<Node>(
      Node{node_->document, member ? member : &kEmpty, node_->path_to(key)}));
}

std::int64_t Config::integer(std::string_view key) const {
  return to_integer(node_->need(key), [&] { return node_->where(key); });
}

std::int64_t Config::integer(std::string_view key, std::int64_t fallback) const {
  return node_->find(key) ? integer(key) : fallback;
}

double Config::number(std::string_view key) const {
  return to_number(node_->need(key), [&] { return node_->where(key); });
}

double Config::number(std::string_view key, double fallback) const {
  return node_->find(key) ? number(key) : fallback;
}

bool Config::boolean(std::string_view key, bool fallback) const {
  const Value* member = node_->find(key);
  return member ? to_boolean(*member, [&] { return node_->where(key); }) : fallback;
}

std::string Config::string(std::string_view key) const {
  return to_string(node_->need(key), [&] { return node_->where(key); });
}

std::string Config::string(std::string_view key, std::string_view fallback) const {
  return node_->find(key) ? string(key) : std::string(fallback);
}

std::vector<std::int64_t> Config::integers(std::string_view key) const {
  return to_list(
      node_->find(key), [&] { return node_->where(key); }, to_integer);
}

std::vector<double> Config::numbers(std::string_view key) const {
  return to_list(
      node_->find(key), [&] { return node_->where(key); }, to_number);
}

std::vector<std::string> Config::strings(std::string_view key) const {
  return to_list(
      node_->find(key), [&] { return node_->where(key); }, to_string);
}

std::int64_t Config::bounded(std::string_view key, std::int64_t fallback, std::int64_t low,
                             std::int64_t high) const {
  const std::int64_t n = integer(key, fallback);
  if (n < low || n > high) {
    throw FormatError(
        concat(node_->where(key), ": expected a number from ", low, " to ", high, ", found ", n));
  }
  return n;
}

bool Config::is_object() const { return node_->value->object() != nullptr; }
bool Config::is_array() const { return node_->value->array() != nullptr; }
bool Config::is_string() const { return node_->value->string() != nullptr; }
bool Config::is_boolean() const { return std::holds_alternative<bool>(node_->value->data); }
bool Config::is_number() const {
  const auto& data = node_->value->data;
  return std::holds_alternative<std::int64_t>(data) || std::holds_alternative<double>(data) ||
         std::holds_alternative<json::HugeInteger>(data);
}

bool Config::is_integer() const {
  const auto& data = node_->value->data;
  return std::holds_alternative<std::int64_t>(data) ||
         std::holds_alternative<json::HugeInteger>(data);
}
bool Config::is_null() const { return node_->value->is_null(); }

std::int64_t Config::as_integer() const {
  return to_integer(*node_->value, [&] { return where(); });
}
double Config::as_number() const {
  return to_number(*node_->value, [&] { return where(); });
}
bool Config::as_boolean() const {
  return to_boolean(*node_->value, [&] { return where(); });
}
std::string Config::as_string() const {
  return to_string(*node_->value, [&] { return where(); });
}

std::size_t Config::size() const {
  if (const json::Object* object = node_->value->object()) return object->values.size();
  const json::Array* array = node_->value->array();
  return array ? array->size() : 0;
}

Config Config::operator[](std::size_t i) const {
  if (i >= size())
    throw FormatError(concat(where(), ": expected more than ", i, " elements, found ", size()));
  if (const json::Object* object = node_->value->object()) {
    return Config(std::make_shared<Node>(
        Node{node_->document, &object->values[i], node_->path_to(object->keys[i])}));
  }
  return Config(std::make_shared<Node>(Node{node_->document, &(*node_->value->array())[i],
                                            node_->path + "[" + std::to_string(i) + "]"}));
}

std::vector<std::string> Config::keys() const {
  const json::Object* object = node_->value->object();
  return object ? object->keys : std::vector<std::string>();
}

std::string Config::where() const { return node_->where(); }

std::string Config::dump() const { return json::dump(*node_->value); }

std::vector<std::string> class_labels(const Config& config, std::int64_t classes) {
  const Config names = config.child("id2label");
  std::vector<std::string> labels;
  for (std::int64_t i = 0; i < classes; ++i)
    labels.push_back(names.string(std::to_string(i), "LABEL_" + std::to_string(i)));
  return labels;
}

}  // namespace tessera
