#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/generate.h"
#include "text/stop_filter.h"

// What greedy search, sampling and beam search share.
namespace tessera::text {

/// One call of generate().
struct Decoding {
  Context& ctx;
  const LanguageModel& model;
  const Tokenizer* tokenizer;
  const GenerateHooks& hooks;
  std::vector<std::int32_t> prompt_ids;
  SamplingOptions options;  ///< with max_new_tokens and min_new_tokens as they are in force
  StopReason at_limit;      ///< why max_new_tokens is what it is: max_tokens or context_full

  bool cancelled() const { return hooks.cancelled && hooks.cancelled(); }
  bool is_stop_token(std::int32_t id) const;
  bool is_full(std::size_t generated) const {
    return static_cast<std::int64_t>(generated) >= options.max_new_tokens;
  }
  /// All processors on the logits of the token after `generated`.
  void process(std::span<const std::int32_t> generated, std::span<float> logits) const;
  /// Runs one token of each sequence: logits of their next ones [B, V].
  Tensor step(std::span<const std::int32_t> ids, std::span<KvCache* const> caches) const;
};

/// Row i of logits [B, V].
std::span<float> row(Tensor& logits, std::size_t i);

/// Ids to text, up to the first stop string. Without a tokenizer the text stays empty.
class TextStream {
 public:
  explicit TextStream(const Decoding& decoding);
  /// The text that became certain.
  std::string push(std::int32_t id);
  std::string finish();
  bool stopped() const { return filter_.stopped(); }
  /// All of it so far.
  const std::string& text() const { return text_; }

 private:
  std::optional<StreamDecoder> decoder_;
  StopFilter filter_;
  std::string text_;
};

/// From the logits of the first token [1, V] and the cache after the prompt to the results.
std::vector<Generated> sample(const Decoding& decoding, KvCache cache, const Tensor& logits);
std::vector<Generated> beam_search(const Decoding& decoding, KvCache cache, const Tensor& logits);

[[noreturn]] void throw_nothing_left();

}  // namespace tessera::text
