#include "fusion/examples.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/config.h"
#include "core/error.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKinds =
    "give {\"audio\", \"text\"}, {\"image\", \"text\"}, {\"image\", \"label\"}, {\"text\", "
    "\"label\"}, {\"prompt\", \"completion\"}, {\"messages\"}, {\"prediction\", \"text\"}, "
    "{\"prediction\", \"label\"} or {\"text\"}";

ExampleKind kind_of(const Config& line) {
  const bool text = line.has("text"), label = line.has("label");
  if (line.has("messages")) return ExampleKind::conversation;
  if (line.has("prediction") && (text || label)) return ExampleKind::prediction;
  if (text && label && !line.has("audio") && !line.has("image")) return ExampleKind::classification;
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
  std::string name = line.string(key);
  if (name.starts_with("file://")) name.erase(0, 7);
  if (name.find("://") < 8 || name.starts_with("data:")) {
    throw FormatError(concat(line.where(), ".", key, ": \"", name.substr(0, 40),
                             "\" is no file; store it in one and name that"));
  }
  fs::path file = folder / name;  // an absolute one stays as it is
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored))
    throw FormatError(concat(line.where(), ": there is no file ", file.string()));
  return file;
}

/// Those whose answer is a text that the model writes: they may be mixed.
bool is_written(ExampleKind kind) {
  return kind == ExampleKind::transcription || kind == ExampleKind::caption ||
         kind == ExampleKind::completion || kind == ExampleKind::text ||
         kind == ExampleKind::conversation;
}

/// A message whose content is missing has to call a tool instead.
void check_message(const Config& message) {
  if (!message.is_object())
    throw FormatError(concat(message.where(), ": expected an object {\"role\", \"content\"}"));
  const std::string role = message.string("role");
  static constexpr std::array kRoles = {"system", "user", "assistant", "tool"};
  if (!std::ranges::count(kRoles, role)) {
    throw FormatError(concat(message.where(), ".role: expected system, user, assistant or tool, ",
                             "found \"", role, "\""));
  }
  bool calls = false;
  if (message.has("tool_calls")) {
    const Config list = message.at("tool_calls");
    if (!list.is_array()) throw FormatError(concat(list.where(), ": expected a list"));
    calls = role == "assistant" && list.size() > 0;
  }
  const std::string content = message.string("content", "");
  if (!calls && !message.has("content"))
    throw FormatError(concat(message.where(), ".content: is missing"));
  if (!calls && role == "assistant" && content.find_first_not_of(" \t\r\n") == content.npos)
    throw FormatError(concat(message.where(), ".content: an answer is empty"));
}

/// The file of an image or sound among a message's parts.
Example read_media_part(const Config& part, const std::string& type, const fs::path& folder) {
  const std::array keys = {type.c_str(), "path", "url"};
  const auto key = std::ranges::find_if(keys, [&](const char* k) { return part.has(k); });
  if (key == keys.end()) {
    throw FormatError(concat(part.where(), ": names no file; give \"", type,
                             "\", \"path\" or \"url\" with a file"));
  }
  Example media;
  (type == "image" ? media.image : media.audio) = media_file(part, *key, folder);
  return media;
}

/// A message whose content is a list of parts, as one whose content is their texts, with kMediaMark
/// in the place of images and sounds, which are added to `media`.
Config joined_parts(const Config& message, const fs::path& folder, std::vector<Example>& media) {
  if (!message.is_object() || !message.has("content")) return message;
  nlohmann::json whole = nlohmann::json::parse(message.dump());
  if (!whole["content"].is_array()) return message;
  const Config parts = message.at("content");
  std::string content;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::string type = parts[i].string("type");
    if (type == "text") {
      content += parts[i].string("text");
    } else if (type == "image" || type == "audio") {
      if (message.string("role", "") == "assistant")
        throw FormatError(concat(parts[i].where(), ": the assistant writes texts alone"));
      media.push_back(read_media_part(parts[i], type, folder));
      content += kMediaMark;
    } else {
      throw FormatError(
          concat(parts[i].where(), ".type: expected text, image or audio, found \"", type, "\""));
    }
  }
  whole["content"] = content;
  return Config::parse(whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                       message.where());
}

/// Where there are images or sounds, no text may hold what stands for them.
void check_marks(const Config& messages, const Example& example) {
  if (example.media.empty()) return;
  std::size_t marks = 0;
  for (const Config& message : example.messages) {
    const std::string content = message.string("content", "");
    for (auto at = content.find(kMediaMark); at != content.npos;
         at = content.find(kMediaMark, at + kMediaMark.size()))
      ++marks;
  }
  if (marks != example.media.size()) {
    throw FormatError(concat(messages.where(), ": a text holds the character U+FFFC, which stands ",
                             "for images and sounds here; leave it out"));
  }
}

void read_conversation(const Config& line, const fs::path& folder, Example& example) {
  const Config messages = line.at("messages");
  if (!messages.is_array() || messages.size() == 0)
    throw FormatError(concat(messages.where(), ": expected a list of {\"role\", \"content\"}"));
  for (std::size_t i = 0; i < messages.size(); ++i) {
    example.messages.push_back(joined_parts(messages[i], folder, example.media));
    check_message(example.messages.back());
  }
  check_marks(messages, example);
  if (const Config& last = example.messages.back(); last.string("role") != "assistant") {
    throw FormatError(concat(last.where(), ".role: the last message is to be an answer of the ",
                             "assistant, found one of \"", last.string("role"), "\""));
  }
  if (!line.has("tools")) return;
  example.tools = line.at("tools");
  if (!example.tools->is_array())
    throw FormatError(concat(example.tools->where(), ": expected a list of tools"));
  if (example.tools->size() == 0) example.tools.reset();
}

Example read_line(const Config& line, ExampleKind kind, const fs::path& folder) {
  Example example;
  example.kind = kind;
  if (kind == ExampleKind::conversation) {
    read_conversation(line, folder, example);
    return example;
  }
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

Examples pairs_of(Examples examples) {
  std::map<fs::path, std::size_t> places;
  std::vector<Example> merged;
  for (Example& e : examples.list) {
    if (e.kind != ExampleKind::caption || !e.audio.empty() || !e.prompt.empty() ||
        !e.prompts.empty()) {
      throw FormatError(concat(where(examples, e),
                               ": not a pair; images and texts are told apart by examples of "
                               "{\"image\", \"text\"} alone"));
    }
    const auto [place, fresh] = places.emplace(e.image.lexically_normal(), merged.size());
    if (fresh) {
      merged.push_back(std::move(e));
    } else {
      std::vector<std::string>& texts = merged[place->second].texts;
      texts.insert(texts.end(), e.texts.begin(), e.texts.end());
    }
  }
  examples.list = std::move(merged);
  examples.mixed = false;
  return examples;
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

namespace {

/// A list is read line by line into this.
class Reader {
 public:
  explicit Reader(const fs::path& file)
      : out_{.file = file, .kind = {}, .mixed = false, .list = {}} {}
  void add(const std::string& json, std::int64_t number) {
    const Config line = Config::parse(json, concat(out_.file.string(), ":", number));
    const ExampleKind kind = kind_of(line);
    if (out_.list.empty()) out_.kind = kind;
    out_.mixed = out_.mixed || kind != out_.kind;
    if (kind != out_.kind && !(is_written(kind) && is_written(out_.kind))) {
      throw FormatError(concat(line.where(), ": another kind of example than line ",
                               out_.list.front().line, "; all are to have the same keys"));
    }
    out_.list.push_back(read_line(line, kind, out_.file.parent_path()));
    out_.list.back().line = number;
    for (Example& media : out_.list.back().media) media.line = number;
  }
  Examples take() { return std::move(out_); }

 private:
  Examples out_;
};

/// A row of a table, and the line it begins in; nothing behind the last one. A field in quotes may
/// hold separators, line ends and doubled quotes.
std::optional<std::vector<std::string>> read_row(std::istream& in, char separator,
                                                 std::int64_t& line) {
  std::vector<std::string> row(1);
  bool quoted = false, any = false;
  for (int c = in.get(); c != EOF; c = in.get()) {
    any = true;
    line += c == '\n';
    if (quoted) {
      if (c != '"') {
        row.back() += static_cast<char>(c);
      } else if (in.peek() == '"') {
        row.back() += static_cast<char>(in.get());
      } else {
        quoted = false;
      }
    } else if (c == '"' && row.back().empty()) {
      quoted = true;
    } else if (c == separator) {
      row.emplace_back();
    } else if (c == '\n') {
      return row;
    } else if (c != '\r' || in.peek() != '\n') {
      row.back() += static_cast<char>(c);
    }
  }
  if (quoted) throw FormatError("a quote is not closed");
  return any ? std::optional(row) : std::nullopt;
}

void read_table(std::istream& in, const fs::path& file, char separator, Reader& reader) {
  std::vector<std::string> keys;
  std::int64_t number = 1, next = 1;
  const auto row_at = [&] {
    number = next;
    try {
      return read_row(in, separator, next);
    } catch (const FormatError& error) {
      throw FormatError(concat(file.string(), ":", number, ": ", error.what()));
    }
  };
  while (auto row = row_at()) {
    if (row->size() == 1 && row->front().empty()) continue;
    if (keys.empty()) {
      keys = *row;
      continue;
    }
    if (row->size() != keys.size()) {
      throw FormatError(concat(file.string(), ":", number, ": ", row->size(), " fields, but the ",
                               "first row names ", keys.size()));
    }
    nlohmann::json line = nlohmann::json::object();
    for (std::size_t i = 0; i < keys.size(); ++i) line[keys[i]] = (*row)[i];
    reader.add(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), number);
  }
}

}  // namespace

Examples read_examples(const fs::path& file) {
  std::error_code ignored;
  if (fs::is_directory(file, ignored))
    throw IoError(concat(file.string(), ": is a directory; give a file of JSON Lines"));
  std::ifstream in(file, std::ios::binary);
  if (!in) throw IoError(concat(file.string(), ": can't be read"));
  Reader reader(file);
  const std::string ending = file.extension().string();
  if (ending == ".csv" || ending == ".tsv") {
    read_table(in, file, ending == ".csv" ? ',' : '\t', reader);
  } else {
    std::string text;
    for (std::int64_t number = 1; std::getline(in, text); ++number)
      if (text.find_first_not_of(" \t\r") != text.npos) reader.add(text, number);
  }
  if (in.bad()) throw IoError(concat(file.string(), ": can't be read to its end"));
  Examples examples = reader.take();
  if (examples.list.empty())
    throw FormatError(concat(file.string(), ": has no examples; ", kKinds));
  return examples;
}

}  // namespace tessera::fusion
