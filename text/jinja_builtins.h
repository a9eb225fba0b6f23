#pragma once
#include <optional>
#include <string>

#include "text/jinja_value.h"

namespace tessera::text::jinja {

/// `value|name(args)`; fails where there is no such filter.
Value apply_filter(Runtime& rt, const std::string& name, const Value& value, const Args& args);
/// `value is name(args)`; fails where there is no such test.
bool apply_test(Runtime& rt, const std::string& name, const Value& value, const Args& args);

/// `of.name(args)` of strings, lists, dicts and `loop`; nothing where they have no such method.
std::optional<Value> call_method(Runtime& rt, const Value& of, const std::string& name,
                                 const Args& args);
/// `of.name`: a method, else an element.
Value attribute(Runtime& rt, const Value& of, const std::string& name);
/// `of[index]`: an element, else what `of.index` is.
Value item(Runtime& rt, const Value& of, const Value& index);
/// `of[begin:end:step]`; None: not given.
Value slice(Runtime& rt, const Value& of, const Value& begin, const Value& end, const Value& step);

/// range, dict, namespace, raise_exception, strftime_now, cycler and joiner; undefined for others.
Value global(Runtime& rt, const std::string& name);

/// Two operands and an operator that computes.
Value compute(Runtime& rt, const std::string& op, const Value& a, const Value& b);

/// The argument, or what stands for it where it was not given.
Value given(const Args& args, std::size_t i, std::string_view name, Value otherwise);
Value text_of(std::string_view text);  // of something that is already paid for
std::string uppercase(std::string_view text);
std::string replace_all(Runtime& rt, const std::string& in, const std::string& from,
                        const std::string& to, std::int64_t most);
std::string capitalized(std::string_view text);

}  // namespace tessera::text::jinja
