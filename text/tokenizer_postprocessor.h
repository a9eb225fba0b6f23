#pragma once
#include <cstdint>
#include <vector>

#include "text/tokenizer_json.h"

namespace tessera::text {

/// tokenizer.json's "post_processor", for one sequence: what stands before, after and between its
/// ids.
class PostProcessor {
 public:
  PostProcessor() = default;  ///< adds nothing
  /// Throws FormatError, UnsupportedError for a type that is not known.
  explicit PostProcessor(const JsonView& json);
  std::vector<std::int32_t> operator()(std::vector<std::int32_t> ids) const;

 private:
  struct Piece {
    bool sequence = false;  ///< the text's ids; else:
    std::vector<std::int32_t> ids;
  };
  using Template = std::vector<Piece>;
  void add(const JsonView& json);
  std::vector<Template> templates_;  // one after the other
};

}  // namespace tessera::text
