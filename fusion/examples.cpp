#include "fusion/examples.h"

#include <algorithm>
#include <fstream>

#include "core/config.h"
#include "core/error.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKinds =
    "give {\"audio\", \"text\"}, {\"image\", \"text\"}, {\"image\", \"label\"}, {\"prompt\", "
    "\"completion\"}, {\"prediction\", \"text\"}, {\"prediction\", \"label\"} or {\"text\"}";

ExampleKind kind_of(const Config& line) {
  const bool text = line.has("text"), label = line.has("label");
  if (line.has("prediction") && (text || label)) return ExampleKind::prediction;
  const bool seen = line.has("image") && text;
  if (seen && line.string("task", "") == "caption") return ExampleKind::caption;
  if (line.has("audio") && text) return ExampleKind::transcription;
  if (seen) return ExampleKind::caption;
  if (line.has("image") && label) return ExampleKind::classification;
  if (line.has("prompt") && line.has("completion")) return ExampleKind::completion;
  if (text && !line.has("audio") && !line.has("image")) return ExampleKind::text;
  throw FormatError(concat(line.where(), ": not an example; ", kKinds));
}

fs::path media_file(const Config& line, const char* key, const fs::path& folder) {
  if (!line.has(key)) return {};
  fs::path file = folder / line.string(key);  // an absolute one stays as it is
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored))
    throw FormatError(concat(line.where(), ": there is no file ", file.string()));
  return file;
}

/// Those whose answer is a text that the model writes: they may be mixed.
bool is_written(ExampleKind kind) {
  return kind == ExampleKind::transcription || kind == ExampleKind::caption ||
         kind == ExampleKind::completion || kind == ExampleKind::text;
}

Example read_line(const Config& line, ExampleKind kind, const fs::path& folder) {
  Example example;
  example.kind = kind;
  example.task = line.string("task", "");
  if (line.has("prediction")) example.prediction = line.string("prediction");
  if (kind != ExampleKind::prediction) {
    example.image = media_file(line, "image", folder);
    example.audio = media_file(line, "audio", folder);
  }
  example.texts = line.strings(kind == ExampleKind::completion ? "completion" : "text");
  if (line.has("prompt") && line.at("prompt").is_array()) {
    example.prompts = line.strings("prompt");
    if (example.prompts.size() != example.texts.size()) {
      throw FormatError(concat(line.where(), ": ", example.prompts.size(), " prompts for ",
                               example.texts.size(), " texts; a list of prompts has one for each"));
    }
  } else {
    example.prompt = line.string("prompt", "");
  }
  if (line.has("label")) {
    example.label_is_index = line.at("label").is_number();
    example.label =
        example.label_is_index ? std::to_string(line.integer("label")) : line.string("label");
  }
  for (const std::string& text : example.texts) {
    if (text.find_first_not_of(" \t\r\n") == text.npos)
      throw FormatError(concat(line.where(), ": a text is empty"));
  }
  if (example.texts.empty() && example.label.empty())
    throw FormatError(concat(line.where(), ": has neither a text nor a label"));
  return example;
}

}  // namespace

std::string where(const Examples& examples, const Example& example) {
  return concat(examples.file.string(), ":", example.line);
}

const char* task_of(ExampleKind kind) {
  switch (kind) {
    case ExampleKind::transcription:
      return "transcribe";
    case ExampleKind::caption:
      return "caption";
    default:
      return "prompt";
  }
}

std::int32_t class_index(const Examples& examples, const Example& example,
                         const std::vector<std::string>& labels, const fs::path& checkpoint) {
  auto found = std::ranges::find(labels, example.label);
  if (example.label_is_index) {
    const std::int64_t index = std::stoll(example.label), count = std::ssize(labels);
    found = index >= 0 && index < count ? labels.begin() + index : labels.end();
  }
  if (found == labels.end()) {
    throw FormatError(concat(where(examples, example), ": \"", example.label, "\" is none of the ",
                             labels.size(), " classes of ", checkpoint.string()));
  }
  return static_cast<std::int32_t>(found - labels.begin());
}

Examples read_examples(const fs::path& file) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored))
    throw IoError(concat(file.string(), ": is a directory; give a file of JSON Lines"));
  std::ifstream in(file, std::ios::binary);
  if (!in) throw IoError(concat(file.string(), ": can't be read"));
  Examples examples{.file = file, .kind = {}, .mixed = false, .list = {}};
  std::string text;
  for (std::int64_t number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    const Config line = Config::parse(text, concat(file.string(), ":", number));
    const ExampleKind kind = kind_of(line);
    if (examples.list.empty()) examples.kind = kind;
    examples.mixed = examples.mixed || kind != examples.kind;
    if (kind != examples.kind && !(is_written(kind) && is_written(examples.kind))) {
      throw FormatError(concat(line.where(), ": another kind of example than line ",
                               examples.list.front().line, "; all are to have the same keys"));
    }
    examples.list.push_back(read_line(line, kind, file.parent_path()));
    examples.list.back().line = number;
  }
  if (in.bad()) throw IoError(concat(file.string(), ": can't be read to its end"));
  if (examples.list.empty())
    throw FormatError(concat(file.string(), ": has no examples; ", kKinds));
  return examples;
}

}  // namespace tessera::fusion
