#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/train_options.h"
#include "text/language_model.h"
#include "text/loss.h"
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

/// Token ids to train on and those held out, documents divided by the end token.
struct GptText {
  std::vector<std::int32_t> training, held_out;
};
/// Throws ArgumentError where a part is shorter than a sequence.
GptText read_gpt_text(const GptOptions& options, const text::Tokenizer& tokenizer);

/// Batch `batch` of a step: sequences from places that follow from (seed, step, batch) alone.
text::TokenBatch gpt_batch(const GptOptions& options, const std::vector<std::int32_t>& ids,
                           std::int64_t step, std::int64_t batch);

}  // namespace tessera::cli
