#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "core/config.h"
#include "text/chat_template.h"

namespace tessera::golden {

inline const std::filesystem::path kChatTemplates = TESSERA_SOURCE_DIR "/tests/data/chat_templates";

/// A conversation of golden.json there.
inline text::Conversation conversation(const Config& json) {
  text::Conversation out;
  const Config messages = json.at("messages");
  for (std::size_t i = 0; i < messages.size(); ++i) out.messages.push_back(messages[i]);
  if (json.has("tools")) out.tools = json.at("tools");
  out.add_generation_prompt = json.boolean("prompt", false);
  return out;
}

/// Its special tokens.
inline std::map<std::string, std::string> special_tokens(const Config& golden) {
  const Config all = golden.at("tokens");
  std::map<std::string, std::string> out;
  for (const std::string& name : all.keys()) out[name] = all.string(name);
  return out;
}

}  // namespace tessera::golden
