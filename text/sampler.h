#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/random.h"

namespace tessera::text {

/// How tokens are chosen and when to stop, in HF generate()'s terms. The defaults are HF's: greedy,
/// nothing penalised; only the length is unlimited where HF stops after 20 tokens.
struct SamplingOptions {
  bool do_sample = false;    ///< false: greedy (temperature 0 counts as greedy, too)
  double temperature = 1.0;  ///< this and the next three: only when sampling
  std::int64_t top_k = 50;   ///< 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;  ///< of tokens in prompt and output; 1: off
  double presence_penalty = 0.0;    ///< subtracted once for a token in the output (OpenAI)
  double frequency_penalty = 0.0;   ///< subtracted for each time a token is in the output
  std::int64_t repeat_last_n = 0;   ///< these three see the last n tokens only; 0: all
  std::int64_t no_repeat_ngram_size = 0;
  std::map<std::int32_t, double> logit_bias;         ///< added to the logits
  std::vector<std::vector<std::int32_t>> bad_words;  ///< sequences never completed: bad_words_ids
  std::vector<std::int32_t> suppress_tokens;         ///< never produced
  std::vector<std::int32_t> begin_suppress_tokens;   ///< not produced as the first token
  std::optional<std::int32_t> forced_bos_token;      ///< follows a prompt of one token
  std::vector<std::int32_t> forced_eos_tokens;       ///< one of these is the last of max tokens
  std::uint64_t seed = 0;                            ///< same seed, same text

  std::int64_t num_beams = 1;
  double length_penalty = 1.0;  ///< beam score = sum of log-probabilities / length^length_penalty
  enum class EarlyStopping { no, yes, never };
  EarlyStopping early_stopping = EarlyStopping::no;  ///< HF: False, True, "never"
  /// Sampling: independent draws, with seed, seed + 1, ... Beams: at most num_beams, best first.
  std::int64_t num_return_sequences = 1;

  std::int64_t max_new_tokens = 0;        ///< 0: see max_length
  std::int64_t max_length = 0;            ///< prompt included; 0: up to the model's context
  std::int64_t min_new_tokens = 0;        ///< 0: see min_length
  std::int64_t min_length = 0;            ///< prompt included
  std::vector<std::int32_t> stop_tokens;  ///< eos_token_id
  std::vector<std::string> stop_strings;  ///< the text ends before the first of these
  bool log_probabilities = false;         ///< fill Generated::log_probabilities
  bool average_log_probability = false;   ///< fill Generated::average_log_probability

  bool sampling() const { return do_sample && temperature > 0; }

  /// Throws ArgumentError that names an option out of its range, or a token id outside the
  /// vocabulary where it could never have an effect.
  void validate(std::int64_t vocab_size) const;

  /// The values of a generation_config.json over these defaults. Throws FormatError for values of
  /// the wrong type, UnsupportedError for ways of generating that are not implemented.
  static SamplingOptions from_config(const Config& generation_config);
  /// Puts the values a config has (in generation_config.json's names) over the present ones.
  void apply(const Config& overrides);
};

/// HF's logits processors in HF's order, in place on the logits of the token that comes next:
/// logit_bias, repetition (then frequency and presence) penalty, no_repeat_ngram_size, bad_words,
/// min_length / min_new_tokens, forced tokens, suppressed tokens. Forbidden tokens get -infinity.
/// Lengths must be resolved: max_new_tokens as it is in force (0: no end), min_new_tokens alone.
void process_logits(const SamplingOptions& options, std::span<const std::int32_t> prompt,
                    std::span<const std::int32_t> generated, std::span<float> logits);

struct Candidate {
  std::int32_t id;
  float logit;
};

/// What is left to draw from: temperature, top_k, top_p, min_p, as HF's warpers in this order. At
/// least `min_tokens_to_keep` stay (if so many are possible at all). Of equal logits at the edge of
/// top_p, the lowest ids stay.
std::vector<Candidate> warp_logits(const SamplingOptions& options, std::span<const float> logits,
                                   std::int64_t min_tokens_to_keep = 1);
/// The same into `candidates`; what it needs besides is kept, so that the next call takes no
/// memory.
struct Warped {
  std::vector<Candidate> candidates;
  std::vector<float> tops, some;
};
void warp_logits(const SamplingOptions& options, std::span<const float> logits,
                 std::int64_t min_tokens_to_keep, Warped& warped);

/// Index of the largest number, the lowest one among equals. Throws ArgumentError where there is
/// none above -infinity: everything was forbidden.
std::int32_t argmax(std::span<const float> logits);

/// log(sum(exp(x))).
double log_sum_exp(std::span<const float> x);

/// e^logits, divided by their sum.
std::vector<double> softmax(std::span<const float> logits);

/// Draws an id with probability softmax(logits); `u` in [0, 1) decides. Throws ArgumentError where
/// there are no candidates.
std::int32_t draw(std::span<const Candidate> candidates, double u);

}  // namespace tessera::text
