#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace tessera::text::jinja {

/// A node of a parsed template. What its parts are:
enum class Kind : std::uint8_t {
  // Expressions
  literal,     ///< value
  name,        ///< text
  list,        ///< parts
  tuple,       ///< parts
  dict,        ///< parts: key, value, key, ...
  unary,       ///< text: - + not; part
  binary,      ///< text: the operator, `and`, `or`; two parts
  comparison,  ///< parts; names: the operators between them
  choice,      ///< parts: what, condition[, otherwise]
  attribute,   ///< text; part: of what
  item,        ///< parts: of what, index
  slice,       ///< parts: of what, begin, end, step, null where absent
  call,        ///< parts: callee, arguments; names: one for each argument, empty where it has none
  filter,      ///< text; parts and names as those of a call
  test,        ///< text; parts and names as those of a call
  // Statements
  output,      ///< text as it is
  print,       ///< part
  block,       ///< parts: statements
  branch,      ///< parts: condition, block, condition, block, ...[, block]
  loop,        ///< parts: target, elements, block, condition or null, block of `else` or null
  assign,      ///< parts: target, value
  capture,     ///< {% set x %}; parts: target, block, filter or null
  macro,       ///< text; names: of the parameters; parts: block, defaults of the last parameters
  call_block,  ///< parts: call, macro of the block
  filtered,    ///< parts: filter, block
  with,        ///< parts: target, value, target, value, ..., block
  generation,  ///< part: block
  leave,       ///< {% break %}
  next,        ///< {% continue %}
};

/// The name of what a {% filter %} is for, which no variable has.
constexpr const char* kBlock = " ";

struct Node {
  Kind kind;
  std::uint32_t line;
  std::string text = {};
  Value value = None{};
  std::vector<const Node*> parts = {};
  std::vector<std::string> names = {};
};

/// A template, parsed: with trim_blocks and lstrip_blocks, as HF transformers sets them.
struct Program {
  std::deque<Node> nodes;
  const Node* root = nullptr;
  bool has_generation = false;  ///< {% generation %} is in it
};

/// Throws FormatError naming origin and line.
Program parse(std::string_view source, const std::string& origin);

}  // namespace tessera::text::jinja
