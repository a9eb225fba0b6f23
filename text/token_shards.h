#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "text/tokenizer.h"

namespace tessera::text {

/// The tokens of text files one after the other, each file (a document) followed by the end token
/// where the tokenizer has one. Kept in a file for each text, which is mapped: memory does not grow
/// with the texts, and the next time nothing is encoded.
class TokenShards {
 public:
  TokenShards() = default;
  /// Encodes the texts that have no shard in `folder` yet (another text, size, time or tokenizer
  /// makes another shard). An empty folder: nothing is written, all is kept in memory. Asks `stop`
  /// before each file. Throws IoError, FormatError for an empty text, Error where stopped.
  TokenShards(const std::vector<std::filesystem::path>& files, const Tokenizer& tokenizer,
              const std::filesystem::path& folder, const std::function<bool()>& stop = {});

  std::int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  /// Tokens [begin, begin + count). Throws ArgumentError outside of them.
  std::vector<std::int32_t> read(std::int64_t begin, std::int64_t count) const;

 private:
  std::vector<Tensor> parts_;       // [n] i32 each
  std::vector<std::int64_t> ends_;  // of the parts, in all
};

}  // namespace tessera::text
