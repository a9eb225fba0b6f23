#include "text/chat_template.h"

#include "core/error.h"
#include "core/text_file.h"
#include "text/jinja_eval.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

struct Part {
  std::string source, origin;
  jinja::Program program;
};

Part parse_part(const std::string& source, const std::string& origin) {
  return {source, origin, jinja::parse(source, origin)};
}

jinja::Value value_of(jinja::Runtime& rt, const Config& json) {
  if (json.is_string()) return rt.text(json.as_string());
  if (json.is_boolean()) return json.as_boolean();
  if (json.is_null()) return jinja::None{};
  if (json.is_array()) {
    jinja::Values items;
    for (std::size_t i = 0; i < json.size(); ++i) items.push_back(value_of(rt, json[i]));
    return rt.list(std::move(items));
  }
  if (json.is_object()) {
    jinja::Dict* dict = rt.dict();
    const std::vector<std::string> keys = json.keys();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      rt.take(keys[i].size() + 2 * sizeof(jinja::Value));
      dict->items.emplace_back(rt.text(keys[i]), value_of(rt, json[i]));
    }
    return dict;
  }
  if (json.is_integer()) return json.as_integer();
  return json.as_number();
}

/// As transformers 5 hands a message over: without its keys that are null, and with a model's
/// thoughts under all names that templates read.
jinja::Value message_value(jinja::Runtime& rt, const Config& message) {
  const jinja::Value all = value_of(rt, message);
  auto* const* given = std::get_if<jinja::Dict*>(&all);
  if (!given) rt.fail(concat(message.where(), ": a message is to be an object"));
  std::erase_if((*given)->items, [](const auto& item) { return jinja::is_none(item.second); });
  const auto value = [&](const char* key) { return jinja::find(rt, **given, rt.text(key)); };
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const jinja::Value* found = value(name);
    if (!found) continue;
    const jinja::Value thoughts = *found;
    jinja::Dict* out = rt.dict();
    jinja::assign(rt, *out, rt.text("thinking"), thoughts);
    for (const auto& [key, own] : (*given)->items) jinja::assign(rt, *out, key, own);
    jinja::assign(rt, *out, rt.text("reasoning_content"), thoughts);
    return out;
  }
  return all;
}

}  // namespace

struct ChatTemplate::Impl {
  Part usual;
  std::optional<Part> with_tools;  // a checkpoint may have another one for them

  const Part& part(bool tools) const { return tools && with_tools ? *with_tools : usual; }
};

ChatTemplate ChatTemplate::parse(const std::string& source, const std::string& origin) {
  ChatTemplate out;
  out.impl_ = std::make_shared<const Impl>(Impl{parse_part(source, origin), std::nullopt});
  return out;
}

std::optional<ChatTemplate> ChatTemplate::of_checkpoint(const fs::path& directory) {
  std::error_code ignored;
  const fs::path file = directory / "chat_template.jinja";
  if (fs::exists(file, ignored)) return parse(read_text_file(file), file.string());
  const fs::path config_file = directory / "tokenizer_config.json";
  if (!fs::exists(config_file, ignored)) return std::nullopt;
  const Config config = Config::read(config_file);
  if (!config.has("chat_template")) return std::nullopt;
  const std::string origin = concat(config_file.string(), ": chat_template");
  const Config given = config.at("chat_template");
  if (!given.is_array()) return parse(given.as_string(), origin);
  std::optional<std::string> usual, tools;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::string name = given[i].string("name");
    if (name == "default") usual = given[i].string("template");
    if (name == "tool_use") tools = given[i].string("template");
  }
  if (!usual) throw FormatError(concat(origin, ": none of the templates is named \"default\""));
  ChatTemplate out;
  Impl impl{parse_part(*usual, origin), std::nullopt};
  if (tools) impl.with_tools = parse_part(*tools, origin + ".tool_use");
  out.impl_ = std::make_shared<const Impl>(std::move(impl));
  return out;
}

const std::string& ChatTemplate::chatml() {
  static const std::string kSource =
      "{% for message in messages %}"
      "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
      "{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n";
  return kSource;
}

ChatTemplate::Rendered ChatTemplate::render(
    const Conversation& conversation,
    const std::map<std::string, std::string>& special_tokens) const {
  const Part& part = impl_->part(conversation.tools.has_value());
  jinja::Runtime rt(part.origin);
  jinja::Variables variables;
  for (const auto& [name, token] : special_tokens) variables[name] = rt.text(token);
  jinja::Values messages;
  for (const Config& message : conversation.messages)
    messages.push_back(message_value(rt, message));
  variables["messages"] = rt.list(std::move(messages));
  variables["tools"] =
      conversation.tools ? value_of(rt, *conversation.tools) : jinja::Value(jinja::None{});
  variables["documents"] = jinja::None{};
  variables["add_generation_prompt"] = conversation.add_generation_prompt;
  jinja::Output out = jinja::run(part.program, rt, std::move(variables));
  return {std::move(out.text), std::move(out.generated)};
}

const std::string& ChatTemplate::origin() const { return impl_->usual.origin; }
const std::string& ChatTemplate::source() const { return impl_->usual.source; }
bool ChatTemplate::marks_answers(bool tools) const {
  return impl_->part(tools).program.has_generation;
}
bool ChatTemplate::knows_tools() const {
  return impl_->part(true).source.find("tools") != std::string::npos;
}

}  // namespace tessera::text
