#include "core/json.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace tessera::json {
namespace {

template <class T>
const T* pointee(const Value& value) {
  const auto* held = std::get_if<std::unique_ptr<T>>(&value.data);
  return held ? held->get() : nullptr;
}

/// Fills by_key; of several members of one key the first keeps its place and gets the last one's
/// value, as in Python. Returns one repeated key, or null.
const std::string* index_keys(Object& object) {
  auto& order = object.by_key;
  order.resize(object.keys.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return object.keys[a] < object.keys[b];
  });
  const auto same = [&](std::uint32_t a, std::uint32_t b) {
    return object.keys[a] == object.keys[b];
  };
  const auto repeated = std::adjacent_find(order.begin(), order.end(), same);
  return repeated == order.end() ? nullptr : &object.keys[*repeated];
}

void merge_duplicates(Object& object) {
  const std::vector<std::uint32_t> order = std::move(object.by_key);
  std::vector<bool> dropped(object.keys.size());
  for (std::size_t first = 0, i = 1; i < order.size(); ++i) {
    if (object.keys[order[i]] != object.keys[order[first]]) {
      first = i;
      continue;
    }
    object.values[order[first]] = std::move(object.values[order[i]]);
    dropped[order[i]] = true;
  }
  Object merged;
  for (std::size_t i = 0; i < dropped.size(); ++i) {
    if (dropped[i]) continue;
    merged.keys.push_back(std::move(object.keys[i]));
    merged.values.push_back(std::move(object.values[i]));
  }
  object = std::move(merged);
  index_keys(object);
}

/// Receives nlohmann's parser events (the names and signatures are its) and builds the tree.
class Builder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  Builder(const std::string& origin, Duplicates duplicates)
      : origin_(origin), duplicates_(duplicates) {}

  bool null() { return add({}); }
  bool boolean(bool value) { return add({value}); }
  bool number_integer(number_integer_t value) { return add({value}); }
  bool number_unsigned(number_unsigned_t value) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      return add({HugeInteger{static_cast<double>(value)}});
    return add({static_cast<std::int64_t>(value)});
  }
  bool number_float(number_float_t value, const string_t& text) {
    if (text.find_first_of(".eE") == string_t::npos) return add({HugeInteger{value}});
    return add({value});
  }
  bool string(string_t& value) { return add({std::make_unique<std::string>(std::move(value))}); }
  bool binary(binary_t&) { return false; }  // not in text
  bool start_object(std::size_t) { return open({std::make_unique<Object>()}); }
  bool start_array(std::size_t) { return open({std::make_unique<Array>()}); }
  bool key(string_t& name) {
    const_cast<Object*>(open_.back()->object())->keys.push_back(std::move(name));
    return true;
  }
  bool end_object() {
    Object& object = *const_cast<Object*>(open_.back()->object());
    if (const std::string* repeated = index_keys(object)) {
      if (duplicates_ == Duplicates::rejected)
        throw FormatError(concat(origin_, ": the key \"", *repeated, "\" is there twice"));
      merge_duplicates(object);
    }
    open_.pop_back();
    return true;
  }
  bool end_array() {
    open_.pop_back();
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) {
    std::string reason = e.what();
    if (const auto id = reason.find("] "); id != std::string::npos) reason.erase(0, id + 2);
    constexpr std::size_t kEnough = 300;  // it ends with all of the string that was being read
    if (reason.size() > kEnough) reason = reason.substr(0, kEnough) + "...";
    throw FormatError(concat(origin_, ": not valid JSON: ", reason));
  }

  Value take() { return std::move(root_); }

 private:
  bool add(Value value) {
    place(std::move(value));
    return true;
  }
  bool open(Value value) {
    if (open_.size() >= kMaxDepth)
      throw FormatError(concat(origin_, ": JSON nested deeper than ", kMaxDepth, " levels"));
    open_.push_back(place(std::move(value)));
    return true;
  }
  // Only the innermost open container grows, so the pointers in open_ stay valid.
  Value* place(Value value) {
    if (++count_ > kMaxValues)
      throw FormatError(concat(origin_, ": more than ", kMaxValues, " values"));
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (const Array* array = open_.back()->array())
      return &const_cast<Array*>(array)->emplace_back(std::move(value));
    auto* object = const_cast<Object*>(open_.back()->object());
    return &object->values.emplace_back(std::move(value));
  }

  const std::string& origin_;
  Duplicates duplicates_;
  Value root_;
  std::vector<Value*> open_;
  std::size_t count_ = 0;
};

void dump_to(std::string& text, const Value& value);

void dump_object(std::string& text, const Object& object) {
  text += '{';
  for (std::size_t i = 0; i < object.keys.size(); ++i) {
    if (i) text += ',';
    text += nlohmann::json(object.keys[i]).dump();
    text += ':';
    dump_to(text, object.values[i]);
  }
  text += '}';
}

void dump_array(std::string& text, const Array& array) {
  text += '[';
  for (std::size_t i = 0; i < array.size(); ++i) {
    if (i) text += ',';
    dump_to(text, array[i]);
  }
  text += ']';
}

void dump_to(std::string& text, const Value& value) {
  if (const Object* object = value.object()) {
    dump_object(text, *object);
  } else if (const Array* array = value.array()) {
    dump_array(text, *array);
  } else if (const std::string* string = value.string()) {
    text += nlohmann::json(*string).dump();
  } else if (const bool* flag = std::get_if<bool>(&value.data)) {
    text += *flag ? "true" : "false";
  } else if (const auto* integer = std::get_if<std::int64_t>(&value.data)) {
    text += std::to_string(*integer);
  } else if (const auto* number = std::get_if<double>(&value.data)) {
    text += nlohmann::json(*number).dump();
  } else if (const auto* huge = std::get_if<HugeInteger>(&value.data)) {
    text += nlohmann::json(huge->value).dump();
  } else {
    text += "null";
  }
}

}  // namespace

const std::string* Value::string() const { return pointee<std::string>(*this); }
const Array* Value::array() const { return pointee<Array>(*this); }
const Object* Value::object() const { return pointee<Object>(*this); }

const char* Value::kind() const {
  static constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "an integer",
                                           "a number", "a string",  "an array",   "an object"};
  return kNames[data.index()];
}

const Value* Object::find(std::string_view key) const {
  const auto at =
      std::lower_bound(by_key.begin(), by_key.end(), key,
                       [&](std::uint32_t i, std::string_view wanted) { return keys[i] < wanted; });
  return at != by_key.end() && keys[*at] == key ? &values[*at] : nullptr;
}

Value parse(std::string_view text, const std::string& origin, Duplicates duplicates) {
  // The parser would take a zero byte for the end of the text.
  if (const auto zero = text.find('\0'); zero != std::string_view::npos)
    throw FormatError(concat(origin, ": not valid JSON: a zero byte at byte ", zero));
  Builder builder(origin, duplicates);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string dump(const Value& value) {
  std::string text;
  dump_to(text, value);
  return text;
}

}  // namespace tessera::json
