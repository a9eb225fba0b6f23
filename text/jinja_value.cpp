#include "text/jinja_value.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text::jinja {
namespace {

constexpr int kMostDepth = 100;  // of containers in each other

/// bool, int and float are numbers, which compare by value.
bool is_number(const Value& v) {
  return std::holds_alternative<bool>(v) || std::holds_alternative<std::int64_t>(v) ||
         std::holds_alternative<double>(v);
}

double as_double(const Value& v) {
  if (const bool* b = std::get_if<bool>(&v)) return *b;
  if (const auto* i = std::get_if<std::int64_t>(&v)) return static_cast<double>(*i);
  return std::get<double>(v);
}

int number_order(const Value& a, const Value& b) {
  if (!std::holds_alternative<double>(a) && !std::holds_alternative<double>(b)) {
    const auto whole = [](const Value& v) {
      const bool* flag = std::get_if<bool>(&v);
      return flag ? std::int64_t{*flag} : std::get<std::int64_t>(v);
    };
    return whole(a) < whole(b) ? -1 : whole(a) > whole(b);
  }
  return as_double(a) < as_double(b) ? -1 : as_double(a) > as_double(b);
}

bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}

void append_escaped(std::string& out, char32_t c) {
  char text[16];
  if (c < 0x100) {
    std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned>(c));
  } else if (c < 0x10000) {
    std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned>(c));
  } else {
    std::snprintf(text, sizeof text, "\\U%08x", static_cast<unsigned>(c));
  }
  out += text;
}

std::string quoted(const std::string& text) {
  const bool single = text.find('\'') == text.npos || text.find('"') != text.npos;
  const char32_t quote = single ? '\'' : '"';
  std::string out(1, static_cast<char>(quote));
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (c == quote || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (is_printable(c)) {
      append_char(out, c);
    } else {
      append_escaped(out, c);
    }
  }
  return out + static_cast<char>(quote);
}

void append_json_text(std::string& out, std::string_view text, bool ascii) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
    const std::size_t known = c < 0x80 ? kPlain.find(static_cast<char>(c)) : kPlain.npos;
    char hex[16];
    if (known != kPlain.npos) {
      out += '\\';
      out += kLetters[known];
    } else if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000)) {
      std::snprintf(hex, sizeof hex, "\\u%04x", static_cast<unsigned>(c));
      out += hex;
    } else if (ascii && c >= 0x10000) {
      const auto rest = static_cast<unsigned>(c) - 0x10000;
      std::snprintf(hex, sizeof hex, "\\u%04x\\u%04x", 0xD800 + (rest >> 10),
                    0xDC00 + (rest & 0x3FF));
      out += hex;
    } else {
      append_char(out, c);
    }
  }
  out += '"';
}

/// Writes values, as repr() or as JSON.
class Writer {
 public:
  Writer(Runtime& rt, const JsonStyle* json) : rt_(rt), json_(json) {}

  void write(const Value& value) {
    rt_.spend(1);
    if (out_.size() > Runtime::kMostBytes) rt_.take(out_.size());
    if (const std::string* text = as_text(value)) {
      rt_.spend(text->size() / 16);
      if (json_) {
        append_json_text(out_, *text, json_->ascii);
      } else {
        out_ += quoted(*text);
      }
    } else if (const auto* list = std::get_if<List*>(&value)) {
      write_list(**list);
    } else if (const auto* dict = std::get_if<Dict*>(&value); dict && !(*dict)->is_namespace) {
      write_dict(**dict);
    } else if (is_none(value)) {
      out_ += json_ ? "null" : "None";
    } else if (const bool* flag = std::get_if<bool>(&value)) {
      out_ += json_ ? (*flag ? "true" : "false") : (*flag ? "True" : "False");
    } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      out_ += std::to_string(*integer);
    } else if (const double* number = std::get_if<double>(&value)) {
      out_ += json_ && !std::isfinite(*number) ? (std::isnan(*number) ? "NaN"
                                                  : *number > 0       ? "Infinity"
                                                                      : "-Infinity")
                                               : number_text(*number);
    } else if (!json_ && is_undefined(value)) {
      out_ += "Undefined";
    } else {
      rt_.fail(concat(kind_of(value), " can't be written as ", json_ ? "JSON" : "text"));
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void write_list(const List& list) {
    const bool tuple = list.tuple && !json_;
    open(tuple ? '(' : '[');
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      separate(i);
      write(list.items[i]);
    }
    if (tuple && list.items.size() == 1) out_ += ',';
    close(tuple ? ')' : ']', list.items.empty());
  }
  void write_dict(const Dict& dict) {
    auto items = dict.items;
    if (json_ && json_->sorted) {
      std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return order(rt_, a.first, b.first) < 0;
      });
    }
    open('{');
    for (std::size_t i = 0; i < items.size(); ++i) {
      separate(i);
      if (json_ && !as_text(items[i].first)) {
        out_ += '"';
        write(items[i].first);
        out_ += '"';
      } else {
        write(items[i].first);
      }
      out_ += json_ ? json_->colon : ": ";
      write(items[i].second);
    }
    close('}', items.empty());
  }
  void open(char bracket) {
    if (++depth_ > kMostDepth) rt_.fail("lists and dicts nested too deep to be written");
    out_ += bracket;
  }
  void separate(std::size_t i) {
    if (i > 0) out_ += json_ ? json_->between : ", ";
    new_line();
  }
  void close(char bracket, bool empty) {
    --depth_;
    if (!empty) new_line();
    out_ += bracket;
  }
  void new_line() {
    if (!json_ || !json_->indented) return;
    rt_.take(json_->indent.size() * static_cast<std::size_t>(depth_));
    out_ += '\n';
    for (int i = 0; i < depth_; ++i) out_ += json_->indent;
  }

  Runtime& rt_;
  const JsonStyle* json_;
  std::string out_;
  int depth_ = 0;
};

bool equal_at(Runtime& rt, const Value& a, const Value& b, int depth) {
  rt.spend(1);
  if (depth > kMostDepth) rt.fail("lists and dicts nested too deep to be compared");
  if (is_number(a) && is_number(b)) return number_order(a, b) == 0;
  if (a.index() != b.index()) return false;
  if (const std::string* text = as_text(a)) {
    rt.spend(text->size() / 64);
    return *text == *as_text(b);
  }
  if (const auto* list = std::get_if<List*>(&a)) {
    const Values &x = (*list)->items, &y = std::get<List*>(b)->items;
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), [&](const Value& v, const Value& w) {
      return equal_at(rt, v, w, depth + 1);
    });
  }
  if (const auto* dict = std::get_if<Dict*>(&a); dict && !(*dict)->is_namespace) {
    const Dict& other = *std::get<Dict*>(b);
    return (*dict)->items.size() == other.items.size() &&
           std::ranges::all_of((*dict)->items, [&](const auto& item) {
             const Value* found = find(rt, other, item.first);
             return found && equal_at(rt, item.second, *found, depth + 1);
           });
  }
  if (const auto* dict = std::get_if<Dict*>(&a)) return *dict == std::get<Dict*>(b);
  if (const auto* function = std::get_if<Function*>(&a)) return *function == std::get<Function*>(b);
  if (const auto* loop = std::get_if<Loop*>(&a)) return *loop == std::get<Loop*>(b);
  return true;  // nothing and nothing
}

}  // namespace

const Value* Args::find(std::size_t i, std::string_view name) const {
  if (i < list.size()) return &list[i];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

void Runtime::fail(const std::string& message) const {
  throw FormatError(concat(origin_, ":", line, ": ", message));
}

void Runtime::spend(std::size_t steps) {
  steps_ += steps;
  if (steps_ > kMostSteps) fail("the template takes too many steps; does it loop?");
}

void Runtime::take(std::size_t bytes) {
  bytes_ += bytes;
  if (bytes > kMostBytes || bytes_ > kMostBytes)
    fail(concat("the template makes more than ", kMostBytes >> 20, " MiB of text and lists"));
}

Value Runtime::text(std::string made) {
  take(made.size() + sizeof(std::string));
  return std::make_shared<const std::string>(std::move(made));
}

Value Runtime::list(Values items, bool tuple) {
  take(sizeof(List) + items.size() * sizeof(Value));
  return &lists_.emplace_back(List{std::move(items), tuple});
}

Dict* Runtime::dict(bool is_namespace) {
  take(sizeof(Dict));
  return &dicts_.emplace_back(Dict{{}, is_namespace});
}

Value Runtime::function(std::string name, std::function<Value(Runtime&, const Args&)> call) {
  take(4 * sizeof(Function));
  return &functions_.emplace_back(Function{std::move(name), std::move(call)});
}

Loop* Runtime::loop(Values items) {
  take(sizeof(Loop) + items.size() * sizeof(Value));
  return &loops_.emplace_back(Loop{std::move(items)});
}

const std::string* as_text(const Value& value) {
  const Text* text = std::get_if<Text>(&value);
  return text ? text->get() : nullptr;
}

const std::string& need_text(Runtime& rt, const Value& value) {
  const std::string* text = as_text(value);
  if (!text) rt.fail(concat("expected a string, found ", kind_of(value)));
  return *text;
}

std::int64_t need_integer(Runtime& rt, const Value& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
  rt.fail(concat("expected an integer, found ", kind_of(value)));
}

bool is_undefined(const Value& value) { return std::holds_alternative<Undefined>(value); }
bool is_none(const Value& value) { return std::holds_alternative<None>(value); }

const char* kind_of(const Value& value) {
  static constexpr const char* kNames[] = {"something undefined",
                                           "none",
                                           "a boolean",
                                           "an integer",
                                           "a number",
                                           "a string",
                                           "a list",
                                           "a dict",
                                           "a function",
                                           "a loop"};
  return kNames[value.index()];
}

bool truth(const Value& value) {
  if (const std::string* text = as_text(value)) return !text->empty();
  if (const auto* list = std::get_if<List*>(&value)) return !(*list)->items.empty();
  if (const auto* dict = std::get_if<Dict*>(&value))
    return (*dict)->is_namespace || !(*dict)->items.empty();
  if (is_number(value)) return as_double(value) != 0;
  return !is_undefined(value) && !is_none(value);
}

std::string str(Runtime& rt, const Value& value) {
  if (const std::string* text = as_text(value)) return *text;
  return is_undefined(value) ? "" : repr(rt, value);
}

std::string repr(Runtime& rt, const Value& value) {
  Writer writer(rt, nullptr);
  writer.write(value);
  return writer.take();
}

std::string to_json(Runtime& rt, const Value& value, const JsonStyle& style) {
  Writer writer(rt, &style);
  writer.write(value);
  return writer.take();
}

bool equal(Runtime& rt, const Value& a, const Value& b) { return equal_at(rt, a, b, 0); }

int order(Runtime& rt, const Value& a, const Value& b) {
  rt.spend(1);
  if (is_number(a) && is_number(b)) return number_order(a, b);
  const std::string *x = as_text(a), *y = as_text(b);
  if (x && y) {
    rt.spend(std::min(x->size(), y->size()) / 64);
    return x->compare(*y);  // bytes of UTF-8 are in the order of the characters
  }
  const auto *v = std::get_if<List*>(&a), *w = std::get_if<List*>(&b);
  if (!v || !w) rt.fail(concat(kind_of(a), " and ", kind_of(b), " have no order"));
  const Values &left = (*v)->items, &right = (*w)->items;
  for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
    if (equal(rt, left[i], right[i])) continue;
    if (std::holds_alternative<List*>(left[i])) rt.fail("lists of lists have no order here");
    return order(rt, left[i], right[i]);
  }
  return left.size() < right.size() ? -1 : left.size() > right.size();
}

bool contains(Runtime& rt, const Value& container, const Value& item) {
  if (const std::string* text = as_text(container)) {
    const std::string& wanted = need_text(rt, item);
    rt.spend_search(text->size(), wanted.size());
    return text->find(wanted) != text->npos;
  }
  if (const auto* dict = std::get_if<Dict*>(&container); dict && !(*dict)->is_namespace)
    return find(rt, **dict, item) != nullptr;
  if (is_undefined(container)) return false;
  const auto* list = std::get_if<List*>(&container);
  if (!list) rt.fail(concat("nothing can be in ", kind_of(container)));
  return std::ranges::any_of((*list)->items, [&](const Value& v) { return equal(rt, v, item); });
}

Values elements(Runtime& rt, const Value& value) {
  Values out;
  if (const std::string* text = as_text(value)) {
    rt.take(text->size() * 2 * sizeof(Value));
    for (const std::string_view c : characters(*text))
      out.push_back(std::make_shared<const std::string>(c));
  } else if (const auto* list = std::get_if<List*>(&value)) {
    out = (*list)->items;
  } else if (const auto* dict = std::get_if<Dict*>(&value); dict && !(*dict)->is_namespace) {
    for (const auto& item : (*dict)->items) out.push_back(item.first);
  } else if (!is_undefined(value)) {
    rt.fail(concat(kind_of(value), " has no elements to go through"));
  }
  rt.spend(out.size() / 8);
  return out;
}

std::int64_t length(Runtime& rt, const Value& value) {
  if (const std::string* text = as_text(value)) {
    rt.spend(text->size() / 64);
    return std::ranges::count_if(*text, [](char c) { return (c & 0xC0) != 0x80; });
  }
  if (const auto* list = std::get_if<List*>(&value)) return std::ssize((*list)->items);
  if (const auto* dict = std::get_if<Dict*>(&value); dict && !(*dict)->is_namespace)
    return std::ssize((*dict)->items);
  if (!is_undefined(value)) rt.fail(concat(kind_of(value), " has no length"));
  return 0;
}

const Value* find(Runtime& rt, const Dict& dict, const Value& key) {
  rt.spend(dict.items.size() / 16);
  const std::string* text = as_text(key);
  for (const auto& [own, value] : dict.items) {
    const std::string* name = as_text(own);
    if (text && name ? *text == *name : !text && !name && equal(rt, own, key)) return &value;
  }
  return nullptr;
}

void assign(Runtime& rt, Dict& dict, const Value& key, Value value) {
  if (std::holds_alternative<List*>(key) || std::holds_alternative<Dict*>(key))
    if (!std::holds_alternative<List*>(key) || !std::get<List*>(key)->tuple)
      rt.fail(concat(kind_of(key), " can't be a key"));
  if (const Value* own = find(rt, dict, key)) {
    *const_cast<Value*>(own) = std::move(value);
    return;
  }
  rt.take(2 * sizeof(Value));
  dict.items.emplace_back(key, std::move(value));
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (std::size_t at = 0; at < text.size(); at += out.back().size())
    out.push_back(text.substr(at, char_length(static_cast<unsigned char>(text[at]))));
  return out;
}

bool is_space(std::string_view character) {
  std::size_t at = 0;
  const char32_t c = next_char(character, at);
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return CharClasses::get().is(c, CharClasses::kSpace);
}

std::string_view strip(std::string_view text, bool left, bool right, const std::string* of) {
  const auto goes = [&](std::string_view c) {
    return of ? of->find(c) != of->npos : is_space(c);  // whole characters find whole characters
  };
  while (left && !text.empty()) {
    const std::size_t bytes = char_length(static_cast<unsigned char>(text.front()));
    if (!goes(text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  while (right && !text.empty()) {
    std::size_t at = text.size();
    previous_char(text, at);
    if (!goes(text.substr(at))) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  char buffer[400];
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, end.ptr);
  if (plain && text.find('.') == text.npos) text += ".0";
  return text;
}

}  // namespace tessera::text::jinja
