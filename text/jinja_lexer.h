#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text::jinja {

struct Token {
  enum class Kind : std::uint8_t {
    text,         ///< between the tags
    block_begin,  ///< {%
    block_end,
    print_begin,  ///< {{
    print_end,
    name,
    string,  ///< its text without quotes and escapes
    integer,
    number,
    op,
    end,
  };
  Kind kind;
  std::string text;
  std::uint32_t line;

  bool is(std::string_view op_or_name) const {
    return (kind == Kind::op || kind == Kind::name) && text == op_or_name;
  }
};

/// Splits a template as Jinja's lexer does with trim_blocks and lstrip_blocks: comments are left
/// out, white space around tags is taken off. Throws FormatError naming origin and line.
std::vector<Token> tokenize(std::string_view source, const std::string& origin);

}  // namespace tessera::text::jinja
