#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "text/language_model.h"

namespace tessera::text {

/// What a model gives each token of a text but the first: log-probabilities after all tokens before
/// it, at most `context` of them (0: as many as the model takes). Long texts are cut into windows
/// of that length that do not overlap, each with the last token of the one before it as its first.
/// Throws ArgumentError for fewer than two tokens or a context out of range, UnsupportedError for a
/// decoder that needs images or sound.
std::vector<float> log_probabilities(Context& ctx, const LanguageModel& model,
                                     std::span<const std::int32_t> ids, std::int64_t context = 0);

/// Logits [1, V] of the token after `ids`, which follow what the cache holds; leaves the cache as
/// it was.
Tensor logits_after(Context& ctx, const LanguageModel& model, std::span<const std::int32_t> ids,
                    KvCache& cache);
/// softmax of a row of logits [1, V] at `token`; 0 outside of them.
double probability_of(const Tensor& logits, std::int32_t token);

/// e^-mean: what perplexity is called.
double perplexity(std::span<const float> log_probabilities);

}  // namespace tessera::text
