#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"

namespace tessera::text {

/// What a conversation holds, as HF's chat templates see it.
struct Conversation {
  std::vector<Config> messages;  ///< objects with "role", "content", ...
  std::optional<Config> tools;   ///< a list of JSON schemas
  /// Whether what begins the assistant's next answer is to be written, too.
  bool add_generation_prompt = false;
};

/// A checkpoint's own chat template, in the language Jinja: renders conversations as HF's
/// `apply_chat_template` does, with its sandbox's rules. Const and shared: any number of threads
/// may use one. What a template does is bounded; one that is wrong, or that refuses a
/// conversation, is a FormatError naming its line.
class ChatTemplate {
 public:
  /// Throws FormatError naming origin and line.
  static ChatTemplate parse(const std::string& source, const std::string& origin);
  /// chat_template.jinja of a checkpoint directory, else `chat_template` of its
  /// tokenizer_config.json; nothing where it has neither. Throws IoError, FormatError.
  static std::optional<ChatTemplate> of_checkpoint(const std::filesystem::path& directory);
  /// <|im_start|>role ... <|im_end|>, as OpenAI published it.
  static const std::string& chatml();

  struct Rendered {
    std::string text;
    /// Bytes that the assistant wrote, by {% generation %}: begin and end.
    std::vector<std::pair<std::size_t, std::size_t>> answers;
  };
  /// `special_tokens`: variables for the template, as bos_token (Tokenizer::special_tokens).
  Rendered render(const Conversation& conversation,
                  const std::map<std::string, std::string>& special_tokens) const;

  const std::string& origin() const;
  const std::string& source() const;
  /// Whether it marks the assistant's answers itself.
  bool marks_answers(bool tools) const;
  /// Whether it writes down the tools of a conversation.
  bool knows_tools() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace tessera::text
