#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"

namespace tessera::fusion {

/// What an example is, told by its keys.
enum class ExampleKind {
  prediction,      ///< {"prediction", "text" or "label"}
  transcription,   ///< {"audio", "text"}, an image may be there as well
  caption,         ///< {"image", "text"}; with a sound, where the task says so
  classification,  ///< {"image", "label"} or {"text", "label"}
  completion,      ///< {"prompt", "completion"}
  text,            ///< {"text"}
  conversation,    ///< {"messages"}; "tools" may be there as well
};

/// One line of a JSON Lines file of examples.
struct Example {
  ExampleKind kind = ExampleKind::text;
  std::int64_t line = 0;                  ///< in the file, from 1
  std::filesystem::path image, audio;     ///< empty: none
  std::string prompt;                     ///< the text before the answer
  std::vector<std::string> prompts;       ///< or one before each of the texts
  std::string task;                       ///< whose start sequence to take; empty: the kind's
  std::vector<std::string> texts;         ///< what is to be written: references, or the one answer
  std::string label;                      ///< the class: its name, or its index as digits
  bool label_is_index = false;            ///< the file gives a number
  std::optional<std::string> prediction;  ///< somebody's answer
  std::vector<Config> messages;           ///< {"role", "content", ...}; the last one is an answer
  std::optional<Config> tools;            ///< what the assistant may call
  /// The images and sounds of its messages in order, each an example with that file alone; their
  /// places in "content" are kMediaMark.
  std::vector<Example> media;
};

/// Stands in a message's text for an image or a sound (U+FFFC, the object replacement character).
inline constexpr std::string_view kMediaMark = "\xEF\xBF\xBC";

struct Examples {
  std::filesystem::path file;
  ExampleKind kind;           ///< of the first one
  bool mixed = false;         ///< others are of other kinds
  std::vector<Example> list;  ///< at least one
};

/// What stands before a text of an example.
inline const std::string& prompt_before(const Example& example, std::size_t text) {
  return example.prompts.empty() ? example.prompt : example.prompts[text];
}

/// "list.jsonl:3", for messages.
std::string where(const Examples& examples, const Example& example);

/// The task whose answer such an example has: "transcribe", "caption" or "prompt".
const char* task_of(ExampleKind kind);

/// Captions as pairs to be told apart: one example for each image, with the texts of all its lines.
/// Throws FormatError naming the line where one is no photo with texts alone.
Examples pairs_of(Examples examples);

/// Which of a checkpoint's classes an example is of. Throws FormatError naming the line where it is
/// none of them.
std::int32_t class_index(const Examples& examples, const Example& example,
                         const std::vector<std::string>& labels,
                         const std::filesystem::path& checkpoint);

/// Reads a file of one JSON object a line, or, named .csv or .tsv, a table (RFC 4180) whose first
/// row names these keys. "text" may be a list of texts, and "prompt" then a list
/// as long, one for each; "image" and "audio" are
/// files, relative to the folder of the list; other keys are left alone. Throws IoError, and
/// FormatError naming the line: no JSON, a key missing or of another type, classes or predictions
/// among other kinds, a text without a character, a media file that is not there, messages of
/// another role than system, user, assistant and tool or that do not end with an answer. "content"
/// of a message may be a list of parts as HF has them: {"type": "text", "text"}, {"type": "image",
/// "image" or "path" or "url"}, {"type": "audio", ...}; files as above, nothing is fetched from the
/// net.
Examples read_examples(const std::filesystem::path& file);

}  // namespace tessera::fusion
