// Filters and tests.
#include "text/jinja_builtins.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text::jinja {
namespace {

using Filter = Value (*)(Runtime&, const Value&, const Args&);
using Test = bool (*)(Runtime&, const Value&, const Args&);

/// "a.b.0": an element of an element, as `map(attribute=...)` has it.
Value by_path(Runtime& rt, Value value, const Value& path) {
  if (!as_text(path)) return item(rt, value, path);
  std::string_view rest = *as_text(path);
  while (!rest.empty()) {
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    const std::string_view part = rest.substr(0, dot);
    std::int64_t index = 0;
    const auto result = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = result.ec == std::errc() && result.ptr == part.data() + part.size();
    value = item(rt, value, number ? Value(index) : text_of(part));
    rest.remove_prefix(std::min(dot + 1, rest.size()));
  }
  return value;
}

/// What the elements are compared, added, ... by: themselves, or what `attribute` names of them.
Values keys_of(Runtime& rt, const Values& items, const Value& attribute) {
  if (is_none(attribute)) return items;
  Values keys;
  for (const Value& v : items) keys.push_back(by_path(rt, v, attribute));
  return keys;
}

Value folded(Runtime& rt, const Value& v, bool case_sensitive) {
  const std::string* text = as_text(v);
  return text && !case_sensitive ? rt.text(lowercase(*text)) : v;
}

/// The arguments behind the first `count`.
Args behind(const Args& args, std::size_t count) {
  Args rest = args;
  rest.list.erase(rest.list.begin(), rest.list.begin() + static_cast<std::ptrdiff_t>(
                                                             std::min(count, rest.list.size())));
  return rest;
}

// --- of texts ---

Value trim(Runtime& rt, const Value& v, const Args& a) {
  const std::string text = str(rt, v);
  const Value* of = a.find(0, "chars");
  return rt.text(
      std::string(strip(text, true, true, of && !is_none(*of) ? &need_text(rt, *of) : nullptr)));
}

/// What follows a space, a dash or an opening bracket is large, the rest small.
Value title(Runtime& rt, const Value& v, const Args&) {
  std::string out;
  bool begins = true;
  const std::string text = str(rt, v);
  for (const std::string_view c : characters(text)) {
    out += begins ? uppercase(c) : lowercase(c);
    begins = is_space(c) || std::string_view("-({[<").find(c) != std::string_view::npos;
  }
  return rt.text(std::move(out));
}

Value indent(Runtime& rt, const Value& v, const Args& a) {
  const Value width = given(a, 0, "width", std::int64_t{4});
  const std::string step = as_text(width)
                               ? *as_text(width)
                               : *as_text(compute(rt, "*", text_of(" "), need_integer(rt, width)));
  const bool first = truth(given(a, 1, "first", false)), blank = truth(given(a, 2, "blank", false));
  const std::string text = str(rt, v);
  std::string out = first ? step : "";
  for (std::size_t at = 0; at < text.size(); ++at) {
    out += text[at];
    if (text[at] != '\n') continue;
    const bool empty = at + 1 >= text.size() || text[at + 1] == '\n';
    if (blank || !empty) {
      rt.take(step.size());
      out += step;
    }
  }
  return rt.text(std::move(out));
}

Value replace(Runtime& rt, const Value& v, const Args& a) {
  const Value count = given(a, 2, "count", None{});
  return rt.text(replace_all(rt, str(rt, v), str(rt, given(a, 0, "old", Undefined{})),
                             str(rt, given(a, 1, "new", Undefined{})),
                             is_none(count) ? -1 : need_integer(rt, count)));
}

Value escape(Runtime& rt, const Value& v, const Args&) {
  std::string out;
  for (const char c : str(rt, v)) {
    out += c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '"'  ? "&#34;"
           : c == '\'' ? "&#39;"
                       : std::string(1, c);
  }
  return rt.text(std::move(out));
}

/// HF's: json.dumps, without the escapes that Jinja's own filter makes for HTML.
Value tojson(Runtime& rt, const Value& v, const Args& a) {
  JsonStyle style;
  style.ascii = truth(given(a, 0, "ensure_ascii", false));
  const Value indent = given(a, 1, "indent", None{}),
              separators = given(a, 2, "separators", None{});
  style.sorted = truth(given(a, 3, "sort_keys", false));
  if (!is_none(indent)) {
    constexpr std::int64_t kMostIndent = 1000;
    style.indented = true;
    style.between = ",";
    style.indent = as_text(indent) ? *as_text(indent)
                                   : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(
                                                     need_integer(rt, indent), 0, kMostIndent)),
                                                 ' ');
  }
  if (!is_none(separators)) {
    style.between = need_text(rt, item(rt, separators, std::int64_t{0}));
    style.colon = need_text(rt, item(rt, separators, std::int64_t{1}));
  }
  return rt.text(to_json(rt, v, style));
}

Value to_integer(Runtime& rt, const Value& v, const Args& a) {
  const Value otherwise = given(a, 0, "default", std::int64_t{0});
  double number = 0;
  if (const std::string* text = as_text(v)) {
    std::string_view digits = strip(*text, true, true, nullptr);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    std::int64_t integer = 0;
    const char* end = digits.data() + digits.size();
    if (const auto r = std::from_chars(digits.data(), end, integer);
        r.ec == std::errc() && r.ptr == end)
      return integer;
    const auto r = std::from_chars(digits.data(), end, number);
    if (r.ec != std::errc() || r.ptr != end) return otherwise;
  } else if (const double* real = std::get_if<double>(&v)) {
    number = *real;
  } else if (std::holds_alternative<bool>(v) || std::holds_alternative<std::int64_t>(v)) {
    return need_integer(rt, v);
  } else {
    return otherwise;
  }
  if (!(std::fabs(number) < 9e18)) return otherwise;
  return static_cast<std::int64_t>(number);
}

Value to_real(Runtime& rt, const Value& v, const Args& a) {
  if (const std::string* text = as_text(v)) {
    const std::string_view digits = strip(*text, true, true, nullptr);
    double number = 0;
    const char* end = digits.data() + digits.size();
    const auto r = std::from_chars(digits.data(), end, number);
    return r.ec == std::errc() && r.ptr == end ? Value(number) : given(a, 0, "default", 0.0);
  }
  if (std::holds_alternative<double>(v)) return v;
  if (std::holds_alternative<bool>(v) || std::holds_alternative<std::int64_t>(v))
    return static_cast<double>(need_integer(rt, v));
  return given(a, 0, "default", 0.0);
}

Value round(Runtime& rt, const Value& v, const Args& a) {
  const std::int64_t digits = std::clamp<std::int64_t>(
      need_integer(rt, given(a, 0, "precision", std::int64_t{0})), -300, 300);
  const std::string method = str(rt, given(a, 1, "method", text_of("common")));
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double x = std::get<double>(compute(rt, "+", v, 0.0)) * scale;
  return (method == "ceil"    ? std::ceil(x)
          : method == "floor" ? std::floor(x)
                              : std::nearbyint(x)) /
         scale;
}

// --- of lists ---

Value join(Runtime& rt, const Value& v, const Args& a) {
  const std::string between = str(rt, given(a, 0, "d", text_of("")));
  std::string out;
  bool first = true;
  for (const Value& part : keys_of(rt, elements(rt, v), given(a, 1, "attribute", None{}))) {
    const std::string text = str(rt, part);
    rt.take(text.size() + between.size());
    if (!first) out += between;
    out += text;
    first = false;
  }
  return rt.text(std::move(out));
}

Value first(Runtime& rt, const Value& v, const Args&) {
  const Values all = elements(rt, v);
  return all.empty() ? Undefined{} : all.front();
}

Value last(Runtime& rt, const Value& v, const Args&) {
  const Values all = elements(rt, v);
  return all.empty() ? Undefined{} : all.back();
}

Value reverse(Runtime& rt, const Value& v, const Args&) {
  Values all = elements(rt, v);
  std::ranges::reverse(all);
  const Value list = rt.list(std::move(all));
  return as_text(v) ? join(rt, list, {}) : list;
}

Value map(Runtime& rt, const Value& v, const Args& a) {
  Values out;
  const Value* attribute = a.list.empty() ? a.find(0, "attribute") : nullptr;
  if (!attribute && a.list.empty()) rt.fail("map: needs a filter or an attribute");
  const Args rest = behind(a, 1);
  for (const Value& one : elements(rt, v)) {
    if (!attribute) {
      out.push_back(apply_filter(rt, need_text(rt, a.list.front()), one, rest));
      continue;
    }
    out.push_back(by_path(rt, one, *attribute));
    if (is_undefined(out.back())) out.back() = given(rest, 1, "default", out.back());
  }
  return rt.list(std::move(out));
}

/// select, reject, selectattr and rejectattr.
template <bool wanted, bool by_attribute>
Value select(Runtime& rt, const Value& v, const Args& a) {
  const std::size_t at = by_attribute;
  if (by_attribute && a.list.empty()) rt.fail("needs the name of an attribute");
  const Args rest = behind(a, at + 1);
  Values out;
  for (const Value& one : elements(rt, v)) {
    const Value of = by_attribute ? by_path(rt, one, a.list.front()) : one;
    const bool is =
        at < a.list.size() ? apply_test(rt, need_text(rt, a.list[at]), of, rest) : truth(of);
    if (is == wanted) out.push_back(one);
  }
  return rt.list(std::move(out));
}

/// The order of elements whose keys these are.
Values sorted(Runtime& rt, const Values& items, const Values& keys, bool sensitive, bool reverse) {
  std::vector<std::pair<Value, std::size_t>> by_key;
  for (const Value& key : keys) by_key.emplace_back(folded(rt, key, sensitive), by_key.size());
  std::stable_sort(by_key.begin(), by_key.end(), [&](const auto& x, const auto& y) {
    const int o = order(rt, x.first, y.first);
    return reverse ? o > 0 : o < 0;
  });
  Values out;
  for (const auto& [key, i] : by_key) out.push_back(items[i]);
  return out;
}

Value sort(Runtime& rt, const Value& v, const Args& a) {
  const Values items = elements(rt, v);
  return rt.list(sorted(rt, items, keys_of(rt, items, given(a, 2, "attribute", None{})),
                        truth(given(a, 1, "case_sensitive", false)),
                        truth(given(a, 0, "reverse", false))));
}

template <bool most>
Value extreme(Runtime& rt, const Value& v, const Args& a) {
  const Values items = elements(rt, v);
  const Values all = sorted(rt, items, keys_of(rt, items, given(a, 1, "attribute", None{})),
                            truth(given(a, 0, "case_sensitive", false)), most);
  return all.empty() ? Undefined{} : all.front();
}

Value unique(Runtime& rt, const Value& v, const Args& a) {
  const bool sensitive = truth(given(a, 0, "case_sensitive", false));
  const Values items = elements(rt, v);
  const Values keys = keys_of(rt, items, given(a, 1, "attribute", None{}));
  Values out, seen;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Value key = folded(rt, keys[i], sensitive);
    if (std::ranges::any_of(seen, [&](const Value& s) { return equal(rt, s, key); })) continue;
    seen.push_back(key);
    out.push_back(items[i]);
  }
  return rt.list(std::move(out));
}

Value sum(Runtime& rt, const Value& v, const Args& a) {
  Value total = given(a, 1, "start", std::int64_t{0});
  for (const Value& one : keys_of(rt, elements(rt, v), given(a, 0, "attribute", None{})))
    total = compute(rt, "+", total, one);
  return total;
}

Value items(Runtime& rt, const Value& v, const Args&) {
  if (is_undefined(v)) return rt.list({});
  if (!std::holds_alternative<Dict*>(v)) rt.fail("items: not a dict");
  return *call_method(rt, v, "items", {});
}

Value dictsort(Runtime& rt, const Value& v, const Args& a) {
  const Values all = elements(rt, items(rt, v, {}));
  const bool by_value = str(rt, given(a, 1, "by", text_of("key"))) == "value";
  return rt.list(sorted(rt, all, keys_of(rt, all, Value(std::int64_t{by_value})),
                        truth(given(a, 0, "case_sensitive", false)),
                        truth(given(a, 2, "reverse", false))));
}

Value absolute(Runtime& rt, const Value& v, const Args&) {
  return order(rt, v, std::int64_t{0}) < 0 ? compute(rt, "-", std::int64_t{0}, v) : v;
}

const std::map<std::string, Filter, std::less<>>& filters() {
  static const Filter kLength = [](Runtime& rt, const Value& v, const Args&) -> Value {
    return length(rt, v);
  };
  static const Filter kDefault = [](Runtime&, const Value& v, const Args& a) {
    const bool boolean = truth(given(a, 1, "boolean", false));
    return is_undefined(v) || (boolean && !truth(v)) ? given(a, 0, "default_value", text_of(""))
                                                     : v;
  };
  static const std::map<std::string, Filter, std::less<>> kFilters = {
      {"abs", absolute},
      {"attr",
       [](Runtime& rt, const Value& v, const Args& a) {
         return attribute(rt, v, need_text(rt, given(a, 0, "name", Undefined{})));
       }},
      {"capitalize",
       [](Runtime& rt, const Value& v, const Args&) { return rt.text(capitalized(str(rt, v))); }},
      {"count", kLength},
      {"d", kDefault},
      {"default", kDefault},
      {"dictsort", dictsort},
      {"e", escape},
      {"escape", escape},
      {"first", first},
      {"float", to_real},
      {"indent", indent},
      {"int", to_integer},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", kLength},
      {"list", [](Runtime& rt, const Value& v, const Args&) { return rt.list(elements(rt, v)); }},
      {"lower",
       [](Runtime& rt, const Value& v, const Args&) { return rt.text(lowercase(str(rt, v))); }},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"replace", replace},
      {"reverse", reverse},
      {"round", round},
      {"safe", [](Runtime& rt, const Value& v, const Args&) { return rt.text(str(rt, v)); }},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"sort", sort},
      {"string", [](Runtime& rt, const Value& v, const Args&) { return rt.text(str(rt, v)); }},
      {"sum", sum},
      {"title", title},
      {"tojson", tojson},
      {"trim", trim},
      {"unique", unique},
      {"upper",
       [](Runtime& rt, const Value& v, const Args&) { return rt.text(uppercase(str(rt, v))); }},
  };
  return kFilters;
}

bool is_integer(const Value& v) { return std::holds_alternative<std::int64_t>(v); }
bool is_mapping(const Value& v) {
  const auto* dict = std::get_if<Dict*>(&v);
  return dict && !(*dict)->is_namespace;
}
bool is_sequence(const Value& v) {
  return as_text(v) || std::holds_alternative<List*>(v) || is_mapping(v) || is_undefined(v);
}

template <int wanted>
bool is_ordered(Runtime& rt, const Value& v, const Args& a) {
  const Value other = given(a, 0, "", Undefined{});
  constexpr bool kOrEqual = wanted == 2 || wanted == -2;
  const int o = order(rt, v, other);
  return wanted > 0 ? (kOrEqual ? o >= 0 : o > 0) : (kOrEqual ? o <= 0 : o < 0);
}

const std::map<std::string, Test, std::less<>>& tests() {
  static const Test kEqual = [](Runtime& rt, const Value& v, const Args& a) {
    return equal(rt, v, given(a, 0, "", Undefined{}));
  };
  static const Test kUnequal = [](Runtime& rt, const Value& v, const Args& a) {
    return !equal(rt, v, given(a, 0, "", Undefined{}));
  };
  static const std::map<std::string, Test, std::less<>> kTests = {
      {"!=", kUnequal},
      {"<", is_ordered<-1>},
      {"<=", is_ordered<-2>},
      {"==", kEqual},
      {">", is_ordered<1>},
      {">=", is_ordered<2>},
      {"boolean",
       [](Runtime&, const Value& v, const Args&) { return std::holds_alternative<bool>(v); }},
      {"callable",
       [](Runtime&, const Value& v, const Args&) { return std::holds_alternative<Function*>(v); }},
      {"defined", [](Runtime&, const Value& v, const Args&) { return !is_undefined(v); }},
      {"divisibleby",
       [](Runtime& rt, const Value& v, const Args& a) {
         return !truth(compute(rt, "%", v, given(a, 0, "num", Undefined{})));
       }},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"even",
       [](Runtime& rt, const Value& v, const Args&) { return need_integer(rt, v) % 2 == 0; }},
      {"false", [](Runtime&, const Value& v,
                   const Args&) { return std::holds_alternative<bool>(v) && !truth(v); }},
      {"float",
       [](Runtime&, const Value& v, const Args&) { return std::holds_alternative<double>(v); }},
      {"ge", is_ordered<2>},
      {"greaterthan", is_ordered<1>},
      {"gt", is_ordered<1>},
      {"in", [](Runtime& rt, const Value& v,
                const Args& a) { return contains(rt, given(a, 0, "seq", Undefined{}), v); }},
      {"integer", [](Runtime&, const Value& v, const Args&) { return is_integer(v); }},
      {"iterable", [](Runtime&, const Value& v, const Args&) { return is_sequence(v); }},
      {"le", is_ordered<-2>},
      {"lessthan", is_ordered<-1>},
      {"lower",
       [](Runtime& rt, const Value& v, const Args&) {
         const std::string t = str(rt, v);
         return lowercase(t) == t && uppercase(t) != t;
       }},
      {"lt", is_ordered<-1>},
      {"mapping", [](Runtime&, const Value& v, const Args&) { return is_mapping(v); }},
      {"ne", kUnequal},
      {"none", [](Runtime&, const Value& v, const Args&) { return is_none(v); }},
      {"number",
       [](Runtime&, const Value& v, const Args&) {
         return is_integer(v) || std::holds_alternative<bool>(v) ||
                std::holds_alternative<double>(v);
       }},
      {"odd",
       [](Runtime& rt, const Value& v, const Args&) { return need_integer(rt, v) % 2 != 0; }},
      {"sameas",
       [](Runtime& rt, const Value& v, const Args& a) {
         const Value other = given(a, 0, "other", Undefined{});
         return v.index() == other.index() && equal(rt, v, other);
       }},
      {"sequence", [](Runtime&, const Value& v, const Args&) { return is_sequence(v); }},
      {"string", [](Runtime&, const Value& v, const Args&) { return as_text(v) != nullptr; }},
      {"true", [](Runtime&, const Value& v,
                  const Args&) { return std::holds_alternative<bool>(v) && truth(v); }},
      {"undefined", [](Runtime&, const Value& v, const Args&) { return is_undefined(v); }},
      {"upper",
       [](Runtime& rt, const Value& v, const Args&) {
         const std::string t = str(rt, v);
         return uppercase(t) == t && lowercase(t) != t;
       }},
  };
  return kTests;
}

}  // namespace

Value apply_filter(Runtime& rt, const std::string& name, const Value& value, const Args& args) {
  const std::string* text = as_text(value);
  rt.spend(1 + (text ? text->size() / 16 : 0));
  const auto known = filters().find(name);
  if (known == filters().end()) rt.fail(concat("the filter '", name, "' is not known here"));
  return known->second(rt, value, args);
}

bool apply_test(Runtime& rt, const std::string& name, const Value& value, const Args& args) {
  rt.spend(1);
  const auto known = tests().find(name);
  if (known == tests().end()) rt.fail(concat("the test '", name, "' is not known here"));
  return known->second(rt, value, args);
}

}  // namespace tessera::text::jinja
