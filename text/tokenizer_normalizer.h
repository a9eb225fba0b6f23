#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace tessera::text {

/// tokenizer.json's "normalizer": text to text. Const and shared.
class Normalizer {
 public:
  Normalizer() = default;  ///< changes nothing
  /// Throws FormatError, UnsupportedError for a type that is not known.
  explicit Normalizer(const JsonView& json);
  bool empty() const { return steps_.empty(); }
  std::string operator()(std::string_view text) const;

 private:
  void add(const JsonView& json);
  std::vector<std::function<std::string(std::string_view)>> steps_;
};

}  // namespace tessera::text
