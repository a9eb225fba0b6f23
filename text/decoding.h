#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/generate.h"
#include "text/stop_filter.h"

// What greedy search, sampling and beam search share.
namespace tessera::text {

/// What one prompt's continuation is about.
struct Decoding {
  Context& ctx;
  const LanguageModel& model;
  const Tokenizer* tokenizer;
  GenerateHooks hooks;
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

/// The search for a prompt's continuation, a token of each of its sequences a step.
class Search {
 public:
  virtual ~Search() = default;
  struct Next {
    std::vector<std::int32_t> ids;
    std::vector<KvCache*> caches;
  };
  /// The tokens to run next, and the caches that each of them continues; none: it has ended.
  virtual void next(Next& next) = 0;
  /// Chooses from the logits that follow them [rows, V], which it may change; at first from those
  /// that follow the prompt [1, V].
  virtual void take(Tensor& logits) = 0;
  /// Ends what has not ended, as cancelled.
  virtual void stop() = 0;
  /// Once, at the end.
  virtual std::vector<Generated> finish() = 0;
};
/// From the cache after the prompt.
std::unique_ptr<Search> new_sampling(const Decoding& decoding, KvCache cache);
std::unique_ptr<Search> new_beam_search(const Decoding& decoding, KvCache cache);

[[noreturn]] void throw_nothing_left();

}  // namespace tessera::text
