#include "fusion/conversation.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace tessera::fusion {
namespace {

using Ids = std::vector<std::int32_t>;
using Rendered = text::ChatTemplate::Rendered;
/// Bytes from begin to end.
using Span = std::pair<std::size_t, std::size_t>;

Ids encode(const text::Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, {.parse_special = true});
}

/// Messages of text alone.
text::Conversation conversation_of(const std::vector<std::pair<const char*, std::string>>& messages,
                                   bool begin_answer) {
  text::Conversation out;
  for (const auto& [role, content] : messages) {
    const nlohmann::json message = {{"role", role}, {"content", content}};
    out.messages.push_back(Config::parse(
        message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), "a message"));
  }
  out.add_generation_prompt = begin_answer;
  return out;
}

bool is_assistant(const Config& message) { return message.string("role", "") == "assistant"; }

/// The assistant's turns in `whole`, by what the template makes of the messages before them.
std::vector<Span> answers_by_prefix(const text::Tokenizer& tokenizer,
                                    const text::ChatTemplate& form, const text::Conversation& all,
                                    const std::string& whole) {
  const auto tokens = tokenizer.special_tokens();
  const auto size_of = [&](std::size_t messages, bool begin_answer) {
    text::Conversation part = all;
    part.messages.resize(messages);
    part.add_generation_prompt = begin_answer;
    const std::string text = form.render(part, tokens).text;
    if (!whole.starts_with(text)) {
      throw FormatError(
          concat("the first ", messages,
                 " messages become another text alone than in the whole "
                 "conversation, so the answers can't be found; mark them in the template with "
                 "{% generation %}, or split the conversation"));
    }
    return text.size();
  };
  std::vector<Span> answers;
  for (std::size_t i = 0; i < all.messages.size(); ++i) {
    if (!is_assistant(all.messages[i])) continue;
    if (i == 0)
      throw FormatError("begins with the assistant's answer; a question is to be before it");
    const std::size_t begin = size_of(i, true);
    answers.emplace_back(begin,
                         i + 1 == all.messages.size() ? whole.size() : size_of(i + 1, false));
  }
  return answers;
}

/// How many tokens of `ids` come before a place of the text, of which `before` is encoded alone; a
/// token across that place counts as behind it.
std::size_t tokens_before(const Ids& ids, const Ids& before) {
  const auto differ = std::ranges::mismatch(ids, before);
  return static_cast<std::size_t>(differ.in1 - ids.begin());
}

/// Tokens of a text without marks, behind those of `out`.
void add_text(const text::Tokenizer& tokenizer, std::string_view text,
              const std::vector<Span>& answers, ConversationTokens& out) {
  const std::size_t base = out.ids.size();
  const Ids ids = encode(tokenizer, text);
  out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  out.answer.resize(out.ids.size());
  for (const auto& [begin, end] : answers) {
    const std::size_t first = tokens_before(ids, encode(tokenizer, text.substr(0, begin)));
    const Ids up_to = encode(tokenizer, text.substr(0, end));
    std::size_t last = tokens_before(ids, up_to);
    if (last < up_to.size() && last < ids.size()) ++last;  // across the end: part of the answer
    for (std::size_t i = first; i < last; ++i) out.answer[base + i] = true;
  }
}

/// What of spans of the whole text is in [begin, end), counted from begin.
std::vector<Span> within(const std::vector<Span>& spans, std::size_t begin, std::size_t end) {
  std::vector<Span> out;
  for (const auto& [first, last] : spans) {
    if (first < end && last > begin)
      out.emplace_back(std::max(first, begin) - begin, std::min(last, end) - begin);
  }
  return out;
}

/// Texts between the marks of `media` images and sounds are encoded each for itself.
ConversationTokens encode_marked(const text::Tokenizer& tokenizer, const text::ChatTemplate& form,
                                 std::string_view text, const std::vector<Span>& answers,
                                 std::size_t media) {
  ConversationTokens out;
  std::size_t begin = 0;
  for (;;) {
    const std::size_t mark = media ? text.find(kMediaMark, begin) : text.npos,
                      end = std::min(mark, text.size());
    add_text(tokenizer, text.substr(begin, end - begin), within(answers, begin, end), out);
    if (mark == text.npos) break;
    out.media.push_back(out.ids.size());
    begin = mark + kMediaMark.size();
  }
  if (out.media.size() != media) {
    throw FormatError(concat(form.origin(), ": writes ", out.media.size(), " of ", media,
                             " images and sounds; each is to be written once"));
  }
  return out;
}

}  // namespace

text::ChatTemplate chat_template_of(const Model& model) {
  if (auto found = text::ChatTemplate::of_checkpoint(model.path)) return std::move(*found);
  throw ArgumentError(concat(model.path.string(),
                             ": has no chat template (chat_template.jinja, or chat_template in "
                             "tokenizer_config.json); fine-tuning gives it one with "
                             "--chat-template FILE, or --chat-template chatml"));
}

ConversationTokens encode_conversation(const text::Tokenizer& tokenizer,
                                       const text::ChatTemplate& form, const Example& example) {
  const text::Conversation all{example.messages, example.tools, false};
  if (all.tools && !form.knows_tools())
    throw FormatError(concat("has tools, which ", form.origin(), " does not write down"));
  const Rendered whole = form.render(all, tokenizer.special_tokens());
  const bool marked = form.marks_answers(all.tools.has_value());
  ConversationTokens out =
      encode_marked(tokenizer, form, whole.text,
                    marked ? whole.answers : answers_by_prefix(tokenizer, form, all, whole.text),
                    example.media.size());
  if (std::ranges::none_of(out.answer, [](bool answer) { return answer; }))
    throw FormatError(concat(form.origin(), " writes no answer of the assistant"));
  return out;
}

ConversationTokens encode_question(const text::Tokenizer& tokenizer, const text::ChatTemplate& form,
                                   const std::string& system, const Prompt& question) {
  std::string content;
  std::size_t media = 0;
  for (const auto& part : question) {
    const auto* text = std::get_if<Text>(&part);
    content += text ? std::string_view(text->text) : kMediaMark;
    media += !text;
  }
  std::vector<std::pair<const char*, std::string>> messages;
  if (!system.empty()) messages.emplace_back("system", system);
  messages.emplace_back("user", content);
  const Rendered text = form.render(conversation_of(messages, true), tokenizer.special_tokens());
  return encode_marked(tokenizer, form, text.text, {}, media);
}

std::string end_of_answer(const text::Tokenizer& tokenizer, const text::ChatTemplate& form) {
  const std::string answer = "An answer.";
  try {
    const Rendered text =
        form.render(conversation_of({{"user", "A question"}, {"assistant", answer}}, false),
                    tokenizer.special_tokens());
    const std::size_t at = text.text.rfind(answer);
    if (at == text.text.npos) return {};
    const std::string rest = text.text.substr(at + answer.size());
    const std::size_t begin = rest.find_first_not_of(" \n"), end = rest.find_last_not_of(" \n");
    return begin == rest.npos ? "" : rest.substr(begin, end + 1 - begin);
  } catch (const FormatError&) {
    return {};  // a template that demands more of a conversation
  }
}

}  // namespace tessera::fusion
