#include "fusion/sequence.h"

#include "core/error.h"

namespace tessera::fusion {

void demand_attended(const Task& task, const std::string& name, bool images, bool sounds) {
  if (!(images || sounds) || (images && task.attends_to_images) ||
      (sounds && task.attends_to_sounds))
    return;
  throw ArgumentError(concat("the task \"", name, "\" attends to ",
                             task.attends_to_images ? "images" : "sounds", " alone, but was given ",
                             images ? "an image" : "a sound", " without ",
                             images ? "a sound" : "an image", "; add one, or choose another task"));
}

void Sequence::add_ids(const std::vector<std::int32_t>& ids) {
  if (ids.empty()) return;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  rows_.push_back(decoder_.embed(ctx_, ids));
}

void Sequence::add(const Text& text) {
  // A plain language model gets what its tokenizer's template adds (BOS); checkpoints with tasks
  // say it themselves.
  const bool plain = model_.tasks.empty() && model_.consume == Consume::splice;
  add_ids(model_.tokenizer->encode(text.text, {.add_special_tokens = plain && ids_.empty()}));
}

std::vector<std::int32_t> Sequence::add_conversation(
    const ConversationTokens& tokens, const std::function<void(std::size_t)>& add_media) {
  std::vector<std::int32_t> rows;
  for (std::size_t i = 0; i <= tokens.media.size(); ++i) {
    const auto at = [&](std::size_t place) {
      return tokens.ids.begin() + static_cast<std::ptrdiff_t>(place);
    };
    const std::size_t begin = rows.size(),
                      end = i < tokens.media.size() ? tokens.media[i] : tokens.ids.size();
    for (std::size_t k = begin; k < end; ++k)
      rows.push_back(static_cast<std::int32_t>(ids_.size() + k - begin));
    add_ids({at(begin), at(end)});
    if (i < tokens.media.size()) add_media(i);
  }
  return rows;
}

void Sequence::demand_start() {
  if (!ids_.empty()) return;
  const auto bos = model_.tokenizer->special("bos_token");
  if (!bos)
    throw ArgumentError("the prompt is empty, and this model has no token to begin a text with");
  add_ids({*bos});
}

void Sequence::add_rows(const Tensor& given, const Tensor& embedding, std::int32_t placeholder) {
  Tensor rows = given;
  if (embedding) {
    const std::vector<std::int32_t> first(static_cast<std::size_t>(rows.dim(0)), 0);
    rows = tessera::add(ctx_, rows, gather_rows(ctx_, embedding, first));
  }
  if (model_.consume == Consume::memory) {
    memory_.push_back(rows);
  } else {
    ids_.insert(ids_.end(), static_cast<std::size_t>(rows.dim(0)), placeholder);
    rows_.push_back(rows);
  }
}

}  // namespace tessera::fusion
