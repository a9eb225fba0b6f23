#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

struct BpeTrainerOptions {
  std::int64_t vocab_size = 8192;  ///< special tokens and the 256 bytes included
  std::int64_t min_frequency = 2;  ///< pairs that are rarer are not merged
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  ///< the first ids
};

/// Learns a byte-level byte pair encoding (Sennrich et al. 2016; Radford et al. 2019) with GPT-2's
/// words from texts: the merges that HF's BpeTrainer finds in the same files.
class BpeTrainer {
 public:
  /// Throws ArgumentError for options out of range.
  explicit BpeTrainer(BpeTrainerOptions options);
  /// Counts the words of a text, line by line as HF does (a line keeps its end).
  void add(std::string_view text);
  /// Finds the merges and returns the text of a tokenizer.json. `progress` is told how many of the
  /// wanted tokens there are. Throws ArgumentError where no text was added.
  std::string train(const std::function<void(std::int64_t, std::int64_t)>& progress = {}) const;

 private:
  BpeTrainerOptions options_;
  std::map<std::string, std::int64_t, std::less<>> words_;
};

}  // namespace tessera::text
