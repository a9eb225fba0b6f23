#pragma once
#include <cstdint>
#include <vector>

#include "fusion/examples.h"
#include "fusion/model.h"
#include "fusion/prompt.h"
#include "text/chat_template.h"

namespace tessera::fusion {

/// A conversation as a model reads it.
struct ConversationTokens {
  std::vector<std::int32_t> ids;
  std::vector<bool> answer;  ///< which of them the assistant wrote, the end of its turns included
  std::vector<std::size_t> media;  ///< of each image and sound, how many ids stand before it
};

/// The chat template of a checkpoint. Throws ArgumentError where it has none, saying how to give
/// one.
text::ChatTemplate chat_template_of(const Model& model);

/// By the chat template, whose special tokens count as such and to which none are added. The
/// assistant's turns are what {% generation %} marks, else what messages[:i + 1] has more than
/// messages[:i] with the beginning of an answer, as TRL finds them. Throws FormatError: the
/// template refuses the conversation, writes no answer, leaves its tools or an image or sound out,
/// or (without {% generation %}) writes earlier messages anew. Images and sounds stand where the
/// template writes the text that they are part of; the template knows nothing of them.
ConversationTokens encode_conversation(const text::Tokenizer& tokenizer,
                                       const text::ChatTemplate& form, const Example& example);

/// A question, with images and sounds in their order, and what is said before it (empty: nothing),
/// up to where the answer begins. Throws FormatError as above.
ConversationTokens encode_question(const text::Tokenizer& tokenizer, const text::ChatTemplate& form,
                                   const std::string& system, const Prompt& question);

/// What a template writes behind an answer, as "<|im_end|>": where generation is to stop. Empty
/// where that can't be told.
std::string end_of_answer(const text::Tokenizer& tokenizer, const text::ChatTemplate& form);

}  // namespace tessera::fusion
