#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/train_options.h"
#include "text/language_model.h"
#include "text/loss.h"
#include "text/token_shards.h"
#include "text/tokenizer.h"
#include "train/trainer.h"

namespace tessera::cli {

struct GptOptions : TrainFlags {
  std::vector<std::string> files, validation;
  std::string tokenizer, prompt = "\n";
  std::int64_t layers = 6, width = 384, heads = 6, context = 256, sample_every = 0,
               evaluate_tokens = 16384;
  double held_out = 0.05, dropout = 0.0;
};

/// A GPT-2 with first numbers, and what its folder needs besides weights.
struct NewGpt {
  train::Parameters parameters;
  std::unique_ptr<text::LanguageModel> model;
  std::string config;  ///< JSON
};
NewGpt make_gpt(const GptOptions& options, const text::Tokenizer& tokenizer);

/// Tokens to train on and those held out, documents divided by the end token.
struct GptText {
  text::TokenShards shards, validation;
  std::int64_t training = 0;            ///< the first so many of `shards`
  std::int64_t held_out = 0;            ///< how many are not trained on
  std::vector<std::int32_t> evaluated;  ///< the first of them
};
/// Kept in the run's folder unless it is only looked at (--dry-run). Throws ArgumentError where a
/// part is shorter than a sequence.
GptText read_gpt_text(const GptOptions& options, const text::Tokenizer& tokenizer);

/// Batch `batch` of a step: sequences from places that follow from (seed, step, batch) alone.
text::TokenBatch gpt_batch(const GptOptions& options, const GptText& text, std::int64_t step,
                           std::int64_t batch);

}  // namespace tessera::cli
