#pragma once
#include <cstdint>
#include <vector>

#include "text/language_model.h"

namespace tessera::text {

/// Sequences of tokens, one after the other, and for each token what is to follow it (kIgnored:
/// that does not count).
struct TokenBatch {
  std::vector<std::int32_t> ids, targets;
  std::vector<std::int64_t> lengths;  ///< of the sequences
};

/// The sum over all tokens that count of -log p(target | its sequence so far), [1]; what is trained
/// when the context has a tape. Throws ArgumentError for ids or targets outside of the vocabulary.
Tensor next_token_loss(Context& ctx, const LanguageModel& model, const TokenBatch& batch,
                       float smoothing = 0);

}  // namespace tessera::text
