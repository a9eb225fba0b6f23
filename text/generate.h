#pragma once
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "core/kv_cache.h"
#include "core/tensor.h"
#include "text/language_model.h"
#include "text/sampler.h"
#include "text/tokenizer.h"

namespace tessera::text {

/// Why a text ended. All of them are ordinary outcomes.
enum class StopReason { end_of_text, stop_string, max_tokens, context_full, cancelled };
/// "end_of_text", "stop_string", ...
const char* name_of(StopReason reason);

struct Generated {
  std::vector<std::int32_t> ids;  ///< without the prompt and the stop token; the tokens of a stop
                                  ///< string are there
  std::string text;               ///< decoded, special tokens skipped, cut before a stop string
  double score = 0;  ///< beam search: sum of log-probabilities / length^length_penalty, as HF's
                     ///< sequences_scores (the stop token counts in both)
  /// One for each id, where SamplingOptions asks for them: what the model itself gives the token
  /// (log_softmax of its logits), before processors, temperature and filters, as vLLM reports them.
  std::vector<float> log_probabilities;
  /// Where asked for: the mean over the ids and the stop token of log_softmax of what they were
  /// chosen from: the logits after processors and filters, without temperature (how sure HF's
  /// Whisper takes itself to be).
  double average_log_probability = 0;
  StopReason stop_reason = StopReason::max_tokens;
};

struct GenerateHooks {
  /// The prompt has been through the model; the first token comes next. `seconds`: what that took,
  /// of prompts in one pass an equal share.
  std::function<void(double seconds)> on_prefill;
  /// Each new token with the text that became certain (may be empty); false stops. Text that was
  /// held back (half a character, the beginning of a stop string) and is part of the answer comes
  /// last, with id -1; so all pieces together are Generated::text. Of several returned sequences:
  /// the first. With beams: called at the end.
  std::function<bool(std::int32_t id, const std::string& piece)> on_token;
  /// Asked before every step; true stops.
  std::function<bool()> cancelled;
  /// Changes the logits of the next token after all processors, before temperature and filters
  /// (Whisper's timestamp rules, for example). Beam search shows log-probabilities here, as HF.
  std::function<void(std::span<const std::int32_t> generated, std::span<float> logits)>
      process_logits;
};

struct GenerateInput {
  KvCache cache;                         ///< empty but for the memory of a decoder with
                                         ///< cross-attention (or what the prompt continues)
  Tensor rows;                           ///< [T, D] the embedded prompt
  std::vector<std::int32_t> prompt_ids;  ///< what penalties and HF's processors see as input_ids;
                                         ///< ids outside of the vocabulary count as no token
};

/// A prompt to be continued, and who is told of the result.
struct GenerateJob {
  GenerateInput input;
  SamplingOptions options;
  GenerateHooks hooks = {};
  std::function<void(std::vector<Generated>)> on_result;
  /// What generate() would have thrown for it. Null: it is thrown, and ends all jobs.
  std::function<void(std::exception_ptr)> on_error = {};
};

/// Continues prompts side by side, at most `together` (>= 1) at a time: the next tokens of all go
/// through the model in one pass, which reads its weights once for all. A job that ends makes room
/// for what `next` gives then (empty: no more). Each result is that of generate(), but for the
/// rounding of products of so many rows at once.
void generate_all(Context& ctx, const LanguageModel& model, const Tokenizer* tokenizer,
                  std::int64_t together, const std::function<std::optional<GenerateJob>()>& next);

/// Prefills once, then decodes a token a step (a row for each beam or drawn sequence). One result,
/// or num_return_sequences of them; beams: best first (fewer where so many do not exist).
/// `tokenizer` may be null: then texts are empty and stop strings an error. Throws ArgumentError
/// for options out of range and for a prompt longer than the model's positions.
std::vector<Generated> generate(Context& ctx, const LanguageModel& model,
                                const Tokenizer* tokenizer, GenerateInput input,
                                const SamplingOptions& options, const GenerateHooks& hooks = {});

}  // namespace tessera::text
