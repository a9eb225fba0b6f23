#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"

namespace tessera::text {

/// How the next token is chosen, in HF generate()'s terms. The defaults are HF's: greedy, nothing penalised.
struct SamplingOptions {
  bool do_sample = false;          ///< false: greedy (temperature 0 counts as greedy, too)
  double temperature = 1.0;
  std::int64_t top_k = 50;         ///< 0: off; only when sampling
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0; ///< over prompt and output, as HF's RepetitionPenaltyLogitsProcessor
  std::int64_t repeat_last_n = 0;  ///< 0: the whole context; else the last n tokens
  double presence_penalty = 0.0;   ///< subtracted once for a token in the output (OpenAI, llama.cpp)
  double frequency_penalty = 0.0;  ///< subtracted for each time a token is in the output
  std::int64_t no_repeat_ngram_size = 0;
  std::map<std::int32_t, double> logit_bias;
  std::vector<std::int32_t> suppress_tokens;        ///< never produced
  std::vector<std::int32_t> begin_suppress_tokens;  ///< not produced as the first token
  std::uint64_t seed = 0;          ///< same seed, same text

  std::int64_t num_beams = 1;
  double length_penalty = 1.0;
  enum class EarlyStopping { no, yes, never } early_stopping = EarlyStopping::no;  ///< HF: False, True, "never"
  std::int64_t num_return_sequences = 1;

  std::int64_t max_new_tokens = 0;  ///< 0: up to the model's context
  std::int64_t min_new_tokens = 0;
  std::vector<std::int32_t> stop_tokens;  ///< eos_token_id
  std::vector<std::string> stop_strings;  ///< the text ends before the first of these
  bool log_probabilities = false;

  /// The values of a generation_config.json over these defaults. `prompt_length` turns max_length into max_new_tokens.
  static SamplingOptions from_config(const Config& generation_config, std::int64_t prompt_length = 0);
  /// Puts the values a config has (in generation_config.json's names) over the present ones.
  void apply(const Config& overrides);
};

}  // namespace tessera::text
