#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "text/chat_template.h"

// Any bytes as a chat template: a text within bounds, or an Error, soon.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera;
  static const Config kMessages = Config::parse(
      R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüß dich \n"},
          {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f",
           "arguments": {"x": [1, 2.5, true, null, {"y": "\"é"}]}}}]},
          {"role": "tool", "content": "{}"}, {"role": "assistant", "content": "<think>a</think>b"}])",
      "fuzz");
  text::Conversation conversation;
  for (std::size_t i = 0; i < kMessages.size(); ++i) conversation.messages.push_back(kMessages[i]);
  conversation.tools = Config::parse(R"([{"function": {"name": "f", "parameters": {}}}])", "fuzz");
  conversation.add_generation_prompt = size % 2 == 0;
  try {
    const auto form =
        text::ChatTemplate::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    const auto out = form.render(conversation, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    for (const auto& [begin, end] : out.answers)
      if (begin > end || end > out.text.size()) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
