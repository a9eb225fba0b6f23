#pragma once
#include <string_view>
#include <vector>

#include "text/tokenizer_regex.h"

namespace tessera::text {

/// The regular expressions that nearly all byte-level tokenizers split with, and matchers written
/// out for them. Each does exactly what the expression does, some ten times as fast; tests compare
/// them.
extern const std::string_view kGpt2Expression;    ///< GPT-2, Whisper and ByteLevel with use_regex
extern const std::string_view kLlama3Expression;  ///< Llama 3: numbers of at most three digits
extern const std::string_view kQwen2Expression;   ///< Qwen 2: each digit on its own

using WordMatcher = std::vector<TextPart> (*)(std::string_view text);
/// All parts are matches, and cover the text.
std::vector<TextPart> gpt2_words(std::string_view text);
std::vector<TextPart> llama3_words(std::string_view text);
std::vector<TextPart> qwen2_words(std::string_view text);
/// Null where there is none for this expression.
WordMatcher word_matcher(std::string_view expression);

}  // namespace tessera::text
