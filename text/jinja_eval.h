#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_parser.h"
#include "text/jinja_value.h"

namespace tessera::text::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

struct Output {
  std::string text;
  /// Bytes that {% generation %} blocks wrote: begin and end.
  std::vector<std::pair<std::size_t, std::size_t>> generated;
};

/// Runs a template. Throws FormatError naming its line: what it does can't be done, what it raises,
/// or that it costs too much (Runtime's limits).
Output run(const Program& program, Runtime& runtime, Variables variables);

}  // namespace tessera::text::jinja
