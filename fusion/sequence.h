#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "fusion/conversation.h"
#include "fusion/model.h"
#include "fusion/prompt.h"

namespace tessera::fusion {

/// Throws ArgumentError where a prompt has images or sounds and the task of that name attends to
/// none of them.
void demand_attended(const Task& task, const std::string& name, bool images, bool sounds);

/// What a prompt becomes: ids with placeholders, their rows, and the memory.
class Sequence {
 public:
  /// Keeps references.
  Sequence(Context& ctx, const Model& model, const text::LanguageModel& decoder, const Task& task)
      : ctx_(ctx), model_(model), decoder_(decoder), task_(task) {}

  void add_ids(const std::vector<std::int32_t>& ids);
  void add(const Text& text);
  /// What the task does not attend to is neither encoded nor added.
  void add(const Image& image) {
    if (task_.attends_to_images) add_image_rows(model_.encode(ctx_, image));
  }
  void add(const Sound& sound) {
    if (task_.attends_to_sounds) add_sound_rows(model_.encode(ctx_, sound));
  }
  /// A conversation's ids; add_media(i) adds its i-th image or sound in its place. Returns for each
  /// id its row.
  std::vector<std::int32_t> add_conversation(const ConversationTokens& tokens,
                                             const std::function<void(std::size_t)>& add_media);
  /// Rows of the decoder's width; not added either where the task does not attend to them.
  void add_image_rows(const Tensor& rows) {
    if (task_.attends_to_images) add_rows(rows, task_.image_embedding, model_.image_token);
  }
  void add_sound_rows(const Tensor& rows) {
    if (task_.attends_to_sounds) add_rows(rows, task_.audio_embedding, model_.audio_token);
  }
  /// Throws ArgumentError where nothing was added and the model has no token to begin with.
  void demand_start();

  const std::vector<std::int32_t>& ids() const { return ids_; }
  Tensor rows() const { return join_rows(ctx_, rows_); }
  /// Empty where the prompt has neither image nor sound, or where they were spliced in.
  Tensor memory() const { return memory_.empty() ? Tensor() : join_rows(ctx_, memory_); }

 private:
  void add_rows(const Tensor& rows, const Tensor& embedding, std::int32_t placeholder);

  Context& ctx_;
  const Model& model_;
  const text::LanguageModel& decoder_;
  const Task& task_;
  std::vector<std::int32_t> ids_;
  std::vector<Tensor> rows_, memory_;
};

}  // namespace tessera::fusion
