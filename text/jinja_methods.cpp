// Methods and elements of values, operators, and the functions that templates can call.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <map>

#include "core/error.h"
#include "text/jinja_builtins.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text::jinja {
namespace {

// --- strings ---

bool is_cased_letter(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT;
}

/// Python's str.title(): what follows no letter is large.
std::string titled(std::string_view text) {
  std::string out;
  bool inside = false;
  for (const std::string_view c : characters(text)) {
    out += inside ? lowercase(c) : uppercase(c);
    std::size_t at = 0;
    inside = is_cased_letter(next_char(c, at));
  }
  return out;
}

/// Python's split() and rsplit(): by white space, or by `separator`, in at most `most` places.
Value split(Runtime& rt, std::string_view text, const std::string* separator, std::int64_t most,
            bool from_right) {
  if (separator && separator->empty()) rt.fail("split: the separator is empty");
  std::vector<std::string_view> parts;
  const auto add = [&](std::string_view part) {
    rt.take(part.size() + 2 * sizeof(Value));
    parts.push_back(part);
  };
  rt.spend_search(text.size(), separator ? separator->size() : 1);
  for (; separator && most != 0; --most) {
    const std::size_t at = from_right ? text.rfind(*separator) : text.find(*separator);
    if (at == text.npos) break;
    add(from_right ? text.substr(at + separator->size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator->size());
  }
  while (!separator) {
    text = strip(text, !from_right, from_right, nullptr);
    if (text.empty() || most-- == 0) break;
    std::size_t at = from_right ? text.size() : 0, next = at;
    while (from_right ? at > 0 : at < text.size()) {
      if (from_right) {
        previous_char(text, next);
      } else {
        next_char(text, next);
      }
      if (is_space(text.substr(std::min(at, next), next > at ? next - at : at - next))) break;
      at = next;
    }
    add(from_right ? text.substr(at) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at);
  }
  if (separator || !text.empty()) add(text);
  if (from_right) std::ranges::reverse(parts);
  Values out;
  for (const std::string_view part : parts) out.push_back(text_of(part));
  return rt.list(std::move(out));
}

Value split_lines(Runtime& rt, std::string_view text, bool keep) {
  Values out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\n\r\v\f\x1c\x1d\x1e"), text.size());
    std::size_t next = std::min(end + 1, text.size());
    if (end + 1 < text.size() && text[end] == '\r' && text[end + 1] == '\n') ++next;
    out.push_back(rt.text(std::string(text.substr(0, keep ? next : end))));
    text.remove_prefix(next);
  }
  return rt.list(std::move(out));
}

bool has_affix(Runtime& rt, const std::string& text, const Value& affix, bool at_start) {
  if (const auto* several = std::get_if<List*>(&affix)) {
    return std::ranges::any_of(
        (*several)->items, [&](const Value& one) { return has_affix(rt, text, one, at_start); });
  }
  const std::string& wanted = need_text(rt, affix);
  return at_start ? text.starts_with(wanted) : text.ends_with(wanted);
}

std::int64_t count_in(Runtime& rt, const std::string& text, const std::string& wanted) {
  if (wanted.empty()) return length(rt, text_of(text)) + 1;
  rt.spend_search(text.size(), wanted.size());
  std::int64_t count = 0;
  for (auto at = text.find(wanted); at != text.npos; at = text.find(wanted, at + wanted.size()))
    ++count;
  return count;
}

std::int64_t find_in(Runtime& rt, const std::string& text, const std::string& wanted, bool last) {
  rt.spend_search(text.size(), wanted.size());
  const std::size_t at = last ? text.rfind(wanted) : text.find(wanted);
  if (at == text.npos) return -1;
  return length(rt, text_of(std::string_view(text).substr(0, at)));
}

/// isdigit(), isalpha(), ...: every character is one of them, and there is one.
bool all_are(Runtime& rt, std::string_view text, std::uint8_t classes) {
  rt.spend(text.size() / 16);
  for (std::size_t at = 0; at < text.size();)
    if (!CharClasses::get().is(next_char(text, at), classes)) return false;
  return !text.empty();
}

Value joined(Runtime& rt, const std::string& between, const Values& parts) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string& part = need_text(rt, parts[i]);
    rt.take(part.size() + between.size());
    if (i > 0) out += between;
    out += part;
  }
  return rt.text(std::move(out));
}

using Method = Value (*)(Runtime&, const std::string&, const Args&);

/// The characters that strip() takes off; null: white space.
const std::string* stripped_characters(Runtime& rt, const Args& args) {
  const Value* of = args.find(0, "chars");
  return of && !is_none(*of) ? &need_text(rt, *of) : nullptr;
}

template <bool left, bool right>
Value strip_method(Runtime& rt, const std::string& text, const Args& args) {
  rt.spend(text.size() / 64);
  return rt.text(std::string(strip(text, left, right, stripped_characters(rt, args))));
}

template <bool from_right>
Value split_method(Runtime& rt, const std::string& text, const Args& args) {
  const Value* separator = args.find(0, "sep");
  const std::int64_t most = need_integer(rt, given(args, 1, "maxsplit", std::int64_t{-1}));
  return split(rt, text, separator && !is_none(*separator) ? &need_text(rt, *separator) : nullptr,
               most, from_right);
}

template <bool at_start>
Value affix_method(Runtime& rt, const std::string& text, const Args& args) {
  return has_affix(rt, text, given(args, 0, "", Undefined{}), at_start);
}

template <bool at_start>
Value remove_affix(Runtime& rt, const std::string& text, const Args& args) {
  const Value affix = given(args, 0, "", Undefined{});
  if (!has_affix(rt, text, affix, at_start)) return text_of(text);
  const std::size_t size = as_text(affix)->size();
  return rt.text(at_start ? text.substr(size) : text.substr(0, text.size() - size));
}

template <bool last, bool demanded>
Value find_method(Runtime& rt, const std::string& text, const Args& args) {
  const std::int64_t at = find_in(rt, text, need_text(rt, given(args, 0, "", Undefined{})), last);
  if (demanded && at < 0) rt.fail("index: the string is not there");
  return at;
}

template <std::uint8_t classes>
Value class_method(Runtime& rt, const std::string& text, const Args&) {
  return all_are(rt, text, classes);
}

const std::map<std::string, Method, std::less<>>& string_methods() {
  static const std::map<std::string, Method, std::less<>> kMethods = {
      {"strip", strip_method<true, true>},
      {"lstrip", strip_method<true, false>},
      {"rstrip", strip_method<false, true>},
      {"split", split_method<false>},
      {"rsplit", split_method<true>},
      {"startswith", affix_method<true>},
      {"endswith", affix_method<false>},
      {"removeprefix", remove_affix<true>},
      {"removesuffix", remove_affix<false>},
      {"find", find_method<false, false>},
      {"rfind", find_method<true, false>},
      {"index", find_method<false, true>},
      {"rindex", find_method<true, true>},
      {"isdigit", class_method<CharClasses::kNumber>},
      {"isnumeric", class_method<CharClasses::kNumber>},
      {"isalpha", class_method<CharClasses::kLetter>},
      {"isalnum", class_method<CharClasses::kLetter | CharClasses::kNumber>},
      {"isspace", class_method<CharClasses::kSpace>},
      {"upper",
       [](Runtime& rt, const std::string& s, const Args&) { return rt.text(uppercase(s)); }},
      {"lower",
       [](Runtime& rt, const std::string& s, const Args&) { return rt.text(lowercase(s)); }},
      {"title", [](Runtime& rt, const std::string& s, const Args&) { return rt.text(titled(s)); }},
      {"capitalize",
       [](Runtime& rt, const std::string& s, const Args&) { return rt.text(capitalized(s)); }},
      {"count",
       [](Runtime& rt, const std::string& s, const Args& a) -> Value {
         return count_in(rt, s, need_text(rt, given(a, 0, "", Undefined{})));
       }},
      {"join",
       [](Runtime& rt, const std::string& s, const Args& a) {
         return joined(rt, s, elements(rt, given(a, 0, "", Undefined{})));
       }},
      {"splitlines",
       [](Runtime& rt, const std::string& s, const Args& a) {
         return split_lines(rt, s, truth(given(a, 0, "keepends", false)));
       }},
      {"replace",
       [](Runtime& rt, const std::string& s, const Args& a) {
         return rt.text(replace_all(rt, s, need_text(rt, given(a, 0, "old", Undefined{})),
                                    need_text(rt, given(a, 1, "new", Undefined{})),
                                    need_integer(rt, given(a, 2, "count", std::int64_t{-1}))));
       }},
  };
  return kMethods;
}

// --- containers ---

std::optional<Value> dict_method(Runtime& rt, Dict& dict, const std::string& name,
                                 const Args& args) {
  if (name == "get") {
    const Value* found = find(rt, dict, given(args, 0, "", Undefined{}));
    return found ? *found : given(args, 1, "default", None{});
  }
  const bool items = name == "items", keys = name == "keys";
  if (items || keys || name == "values") {
    Values out;
    for (const auto& [key, value] : dict.items)
      out.push_back(items ? rt.list({key, value}, true) : keys ? key : value);
    return rt.list(std::move(out));
  }
  if (name == "copy") {
    Dict* copy = rt.dict();
    rt.take(dict.items.size() * 2 * sizeof(Value));
    copy->items = dict.items;
    return Value(copy);
  }
  static constexpr std::array kChanges = {"clear", "pop", "popitem", "setdefault", "update"};
  if (std::ranges::count(kChanges, name))
    rt.fail(concat(name, "() would change a dict, which templates can't"));
  return std::nullopt;
}

std::optional<Value> list_method(Runtime& rt, const List& list, const std::string& name,
                                 const Args& args) {
  if (name == "count" || name == "index") {
    const Value wanted = given(args, 0, "", Undefined{});
    std::int64_t count = 0;
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      if (!equal(rt, list.items[i], wanted)) continue;
      if (name == "index") return Value(static_cast<std::int64_t>(i));
      ++count;
    }
    if (name == "index") rt.fail("index: the value is not in the list");
    return Value(count);
  }
  static constexpr std::array kChanges = {"append", "clear",  "extend",  "insert",
                                          "pop",    "remove", "reverse", "sort"};
  if (std::ranges::count(kChanges, name))
    rt.fail(concat(name, "() would change a list, which templates can't"));
  return std::nullopt;
}

std::optional<Value> loop_method(Runtime& rt, Loop& loop, const std::string& name,
                                 const Args& args) {
  if (name == "cycle") {
    if (args.list.empty()) rt.fail("cycle: has nothing to choose from");
    return args.list[loop.at % args.list.size()];
  }
  if (name == "changed") {
    const auto same = [&](const Value& a, const Value& b) { return equal(rt, a, b); };
    const bool is = !std::equal(args.list.begin(), args.list.end(), loop.changed.begin(),
                                loop.changed.end(), same);
    loop.changed = args.list;
    return Value(is);
  }
  return std::nullopt;
}

Value loop_attribute(const Loop& loop, const std::string& name) {
  const auto at = static_cast<std::int64_t>(loop.at), size = std::ssize(loop.items);
  if (name == "index") return at + 1;
  if (name == "index0") return at;
  if (name == "revindex") return size - at;
  if (name == "revindex0") return size - at - 1;
  if (name == "first") return at == 0;
  if (name == "last") return at + 1 == size;
  if (name == "length") return size;
  if (name == "depth") return std::int64_t{1};  // loops that call themselves are not known
  if (name == "depth0") return std::int64_t{0};
  if (name == "previtem" && at > 0) return loop.items[loop.at - 1];
  if (name == "nextitem" && at + 1 < size) return loop.items[loop.at + 1];
  return Undefined{std::make_shared<const std::string>("loop." + name)};
}

bool is_method(const Value& of, const std::string& name) {
  static constexpr std::array kOfDicts = {"get", "items", "keys", "values", "copy"};
  static constexpr std::array kOfLoops = {"cycle", "changed"};
  if (as_text(of)) return string_methods().contains(name);
  if (const auto* dict = std::get_if<Dict*>(&of))
    return !(*dict)->is_namespace && std::ranges::count(kOfDicts, name);
  return std::holds_alternative<Loop*>(of) && std::ranges::count(kOfLoops, name);
}

Value missing(const std::string& name) {
  return Undefined{std::make_shared<const std::string>(name)};
}

// --- numbers ---

std::optional<std::int64_t> whole(const Value& v) {
  if (const bool* flag = std::get_if<bool>(&v)) return *flag;
  if (const auto* integer = std::get_if<std::int64_t>(&v)) return *integer;
  return std::nullopt;
}
std::optional<double> real(const Value& v) {
  if (const double* number = std::get_if<double>(&v)) return *number;
  const auto integer = whole(v);
  return integer ? std::optional(static_cast<double>(*integer)) : std::nullopt;
}

Value power(Runtime& rt, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  std::int64_t out = 1;
  for (; exponent > 0; exponent >>= 1) {
    const bool bad = (exponent & 1 && __builtin_mul_overflow(out, base, &out)) ||
                     (exponent > 1 && __builtin_mul_overflow(base, base, &base));
    if (bad) rt.fail("a number beyond 64 bits");
  }
  return out;
}

Value of_integers(Runtime& rt, const std::string& op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    return power(rt, a, b);
  } else {
    if (b == 0) rt.fail("division by zero");
    if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
    if (b == -1) return op == "//" ? of_integers(rt, "-", 0, a) : Value(std::int64_t{0});
    // As in Python, towards minus infinity.
    out = op == "//" ? a / b - (a % b != 0 && (a < 0) != (b < 0))
                     : a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
  }
  if (overflow) rt.fail("a number beyond 64 bits");
  return out;
}

Value of_reals(Runtime& rt, const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) rt.fail("division by zero");
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value repeated(Runtime& rt, const Value& of, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::clamp<std::int64_t>(times, 0, 1 << 28));
  if (const std::string* text = as_text(of)) {
    rt.take((text->size() + 1) * count);
    std::string out;
    for (std::size_t i = 0; i < count && !text->empty(); ++i) out += *text;
    return rt.text(std::move(out));
  }
  const List& list = *std::get<List*>(of);
  rt.take((list.items.size() + 1) * sizeof(Value) * count);
  Values out;
  for (std::size_t i = 0; i < count; ++i)
    out.insert(out.end(), list.items.begin(), list.items.end());
  return rt.list(std::move(out), list.tuple);
}

// --- functions ---

Value range(Runtime& rt, const Args& args) {
  constexpr std::int64_t kMost = 100000;  // as Jinja's sandbox has it
  std::int64_t begin = 0, end = need_integer(rt, given(args, 0, "", Undefined{})), step = 1;
  if (args.list.size() > 1) {
    begin = end;
    end = need_integer(rt, args.list[1]);
  }
  if (args.list.size() > 2) step = need_integer(rt, args.list[2]);
  if (step == 0) rt.fail("range: the step is 0");
  Values out;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (std::ssize(out) >= kMost) rt.fail(concat("range: more than ", kMost, " numbers"));
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return rt.list(std::move(out));
}

void check_name(Runtime& rt, const std::string& name) {
  if (name.starts_with("_"))
    rt.fail(concat("a namespace keeps no name that begins with _: ", name));
}

template <bool is_namespace>
Value make_dict(Runtime& rt, const Args& args) {
  Dict* dict = rt.dict(is_namespace);
  if (!args.list.empty()) {
    const auto* from = std::get_if<Dict*>(&args.list.front());
    if (!from) rt.fail(concat("expected a dict, found ", kind_of(args.list.front())));
    for (const auto& [key, value] : (*from)->items) assign(rt, *dict, key, value);
  }
  for (const auto& [key, value] : args.named) {
    if (is_namespace) check_name(rt, key);
    assign(rt, *dict, text_of(key), value);
  }
  return dict;
}

Value raise_exception(Runtime& rt, const Args& args) {
  rt.fail(concat("the template says: ", str(rt, given(args, 0, "message", text_of("")))));
}

Value strftime_now(Runtime& rt, const Args& args) {
  const std::string& format = need_text(rt, given(args, 0, "format", Undefined{}));
  constexpr std::size_t kMostFormat = 200;
  if (format.size() > kMostFormat || format.find('\0') != format.npos)
    rt.fail("strftime_now: not a format");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 4096> buffer{};
  const std::string wanted = format + ".";  // an empty text is no failure
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), wanted.c_str(), &local);
  if (size == 0) rt.fail("strftime_now: not a format");
  return rt.text(replace_invalid_utf8(std::string_view(buffer.data(), size - 1)));
}

}  // namespace

Value given(const Args& args, std::size_t i, std::string_view name, Value otherwise) {
  const Value* found = args.find(i, name);
  return found ? *found : std::move(otherwise);
}

Value text_of(std::string_view text) { return std::make_shared<const std::string>(text); }

std::string uppercase(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c == 0xDF) {
      out += "SS";
    } else {
      append_char(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return {};
  const std::size_t first = char_length(static_cast<unsigned char>(text.front()));
  return uppercase(text.substr(0, first)) + lowercase(text.substr(first));
}

std::string replace_all(Runtime& rt, const std::string& in, const std::string& from,
                        const std::string& to, std::int64_t most) {
  rt.spend_search(in.size(), from.size());
  rt.take(in.size());
  std::string out;
  std::size_t at = 0;
  for (; most != 0 && at <= in.size(); --most) {
    // An empty `from` stands before every character and at the end.
    const std::size_t next = from.empty() ? at : in.find(from, at);
    if (next == in.npos) break;
    rt.take(to.size());
    out.append(in, at, next - at) += to;
    at = next + from.size();
    if (!from.empty()) continue;
    if (at == in.size()) return out;
    const std::size_t size = char_length(static_cast<unsigned char>(in[at]));
    out.append(in, at, size);
    at += size;
  }
  return out.append(in, std::min(at, in.size()));
}

std::optional<Value> call_method(Runtime& rt, const Value& of, const std::string& name,
                                 const Args& args) {
  if (const std::string* text = as_text(of)) {
    const auto known = string_methods().find(name);
    if (known == string_methods().end()) return std::nullopt;
    rt.spend(text->size() / 16);
    return known->second(rt, *text, args);
  }
  if (const auto* list = std::get_if<List*>(&of)) return list_method(rt, **list, name, args);
  if (const auto* loop = std::get_if<Loop*>(&of)) return loop_method(rt, **loop, name, args);
  const auto* dict = std::get_if<Dict*>(&of);
  return dict && !(*dict)->is_namespace ? dict_method(rt, **dict, name, args) : std::nullopt;
}

Value attribute(Runtime& rt, const Value& of, const std::string& name) {
  if (is_method(of, name)) {
    return rt.function(
        name, [of, name](Runtime& r, const Args& args) { return *call_method(r, of, name, args); });
  }
  if (const auto* dict = std::get_if<Dict*>(&of)) {
    const Value* found = find(rt, **dict, text_of(name));
    return found ? *found : missing(name);
  }
  if (const auto* loop = std::get_if<Loop*>(&of)) return loop_attribute(**loop, name);
  if (const auto* undefined = std::get_if<Undefined>(&of)) {
    rt.fail(concat("'", undefined->name ? *undefined->name : "", "' is undefined, and has no '",
                   name, "'"));
  }
  return missing(name);
}

Value item(Runtime& rt, const Value& of, const Value& index) {
  const auto at = whole(index);
  if (const auto* list = std::get_if<List*>(&of); list && at) {
    const std::int64_t size = std::ssize((*list)->items), i = *at < 0 ? *at + size : *at;
    if (i < 0 || i >= size) return missing("an element of the list");
    return (*list)->items[static_cast<std::size_t>(i)];
  }
  if (as_text(of) && at) return item(rt, rt.list(elements(rt, of)), index);
  if (const auto* dict = std::get_if<Dict*>(&of)) {
    if (const Value* found = find(rt, **dict, index)) return *found;
  }
  if (const std::string* name = as_text(index)) return attribute(rt, of, *name);
  if (is_undefined(of)) return attribute(rt, of, str(rt, index));
  return missing(as_text(of) || std::holds_alternative<List*>(of) ? "an element" : str(rt, index));
}

Value slice(Runtime& rt, const Value& of, const Value& begin, const Value& end, const Value& step) {
  if (!as_text(of) && !std::holds_alternative<List*>(of))
    rt.fail(concat(kind_of(of), " can't be cut into slices"));
  const Values all = elements(rt, of);
  const std::int64_t size = std::ssize(all), by = is_none(step) ? 1 : need_integer(rt, step);
  if (by == 0) rt.fail("the step of a slice is 0");
  const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? size : size - 1;
  const auto place = [&](const Value& given, std::int64_t otherwise) {
    if (is_none(given)) return otherwise;
    const std::int64_t i = need_integer(rt, given);
    return std::clamp(i < 0 ? i + size : i, low, high);
  };
  const std::int64_t first = place(begin, by > 0 ? low : high),
                     last = place(end, by > 0 ? high : low);
  Values out;
  for (std::int64_t i = first; by > 0 ? i < last : i > last;) {
    out.push_back(all[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (as_text(of)) return joined(rt, "", out);
  return rt.list(std::move(out), std::get<List*>(of)->tuple);
}

Value global(Runtime& rt, const std::string& name) {
  static const std::map<std::string, Value (*)(Runtime&, const Args&), std::less<>> kKnown = {
      {"range", range},
      {"dict", make_dict<false>},
      {"namespace", make_dict<true>},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now}};
  const auto known = kKnown.find(name);
  return known == kKnown.end() ? missing(name) : rt.function(name, known->second);
}

Value compute(Runtime& rt, const std::string& op, const Value& a, const Value& b) {
  const auto x = whole(a), y = whole(b);
  if (x && y) return of_integers(rt, op, *x, *y);
  const auto v = real(a), w = real(b);
  if (v && w) return of_reals(rt, op, *v, *w);
  if (op == "+" && as_text(a) && as_text(b)) return joined(rt, "", {a, b});
  const auto *left = std::get_if<List*>(&a), *right = std::get_if<List*>(&b);
  if (op == "+" && left && right && (*left)->tuple == (*right)->tuple) {
    rt.take(((*left)->items.size() + (*right)->items.size()) * sizeof(Value));
    Values all = (*left)->items;
    all.insert(all.end(), (*right)->items.begin(), (*right)->items.end());
    return rt.list(std::move(all), (*left)->tuple);
  }
  if (op == "*" && y && (as_text(a) || left)) return repeated(rt, a, *y);
  if (op == "*" && x && (as_text(b) || right)) return repeated(rt, b, *x);
  const auto name = [](const Value& value) {
    const auto* undefined = std::get_if<Undefined>(&value);
    return undefined && undefined->name ? concat("'", *undefined->name, "', which is undefined,")
                                        : std::string(kind_of(value));
  };
  rt.fail(concat(name(a), " ", op, " ", name(b), " can't be computed"));
}

}  // namespace tessera::text::jinja
