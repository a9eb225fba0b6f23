#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_bpe.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_postprocessor.h"
#include "text/tokenizer_pretokenizer.h"

namespace tessera::text {

/// The steps of a tokenizer, in the order in which text goes through them.
struct Tokenizer::Impl {
  explicit Impl(Bpe model) : bpe(std::move(model)) {}

  AddedTokens added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  PostProcessor post_processor;
  Decoder decoder;
  std::map<std::string, std::int32_t, std::less<>> roles;  ///< bos_token and the like

  /// What the decoder gets for this id; none where it is skipped.
  std::optional<std::string_view> decoder_token(std::int32_t id, bool skip_special) const;
};

}  // namespace tessera::text
