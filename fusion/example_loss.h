#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/context.h"
#include "fusion/answer_reward.h"
#include "fusion/conversation.h"
#include "fusion/dual_encoder.h"
#include "fusion/examples.h"
#include "fusion/model.h"
#include "fusion/sequence.h"

namespace tessera::fusion {

/// How images and texts learn to find each other: each chooses its own among all of the batch
/// (CLIP), or each pair is judged for itself (SigLIP).
enum class PairLoss { softmax, sigmoid };

struct ExampleLossOptions {
  std::string language;  ///< multilingual Whisper: the language of the transcripts
  /// Whisper: "transcribe" or "translate"; else a task of the checkpoint, for examples that name
  /// none themselves.
  std::string task;
  /// Stands before every answer to an image or a sound. Empty: a space where the checkpoint's texts
  /// begin with one (Whisper's vocabulary).
  std::optional<std::string> answer_prefix;
  float label_smoothing = 0;
  std::int64_t texts = 1;  ///< of an example that has several, how many a batch takes
  /// Images are seen as random views (vision/augment.h) of at least this share of them; 1: whole.
  double least_view = 1;
  std::uint64_t seed = 1;  ///< of the views
  /// Tokens that the answers have, and so many others drawn for every batch, share the probability
  /// among them (sampled softmax, Jean et al. 2015); 0: all tokens do.
  std::int64_t sampled_tokens = 0;
  /// Self-critical training (Rennie et al. 2017): of captions without a prompt, `draws` are drawn
  /// from the model instead of taken from the example, and each is made likelier by as much as its
  /// reward (AnswerReward) exceeds the mean of the others' (Luo 2020). Empty: none.
  std::vector<std::string> rewards = {};
  std::int64_t draws = 5;
  /// For conversations; empty: the checkpoint's own.
  std::optional<text::ChatTemplate> chat_template = {};
  /// Of a dual encoder; empty: sigmoid where the checkpoint has a logit_bias, else softmax.
  std::optional<PairLoss> pair_loss = {};
};

/// What a model is to learn from examples: the loss of their answers, given what stands before
/// them. Images, sounds and prompts are seen, not learnt. Of a dual encoder: which of a batch's
/// images and texts belong together.
class ExampleLoss {
 public:
  /// Throws FormatError or ArgumentError naming file and line: an example that this model can't
  /// take, a label it does not have, a text longer than its context; ArgumentError for
  /// conversations without a chat template. Media are not read yet.
  ExampleLoss(std::shared_ptr<const Model> model, Examples examples,
              const ExampleLossOptions& options);

  std::int64_t size() const { return static_cast<std::int64_t>(examples_.list.size()); }
  /// Most tokens of an example, rows of images and sounds not counted; 0 for classes.
  std::int64_t longest() const { return longest_; }
  /// Tokens, classes or pairs to be learnt over all examples (of each, its first text).
  std::int64_t targets() const { return targets_; }
  const Examples& examples() const { return examples_; }
  /// "tokens", "classes" or "pairs": what is counted.
  const char* unit() const;
  /// To be called when parameters have changed: keeps a dual encoder's scale at 100 or less, as
  /// CLIP's was in training; SigLIP's has no bound.
  void keep_bounds() const;

  /// Reads the image or sound of an example. Throws FormatError naming file and line where it can't
  /// be read or is longer than the model's window.
  void check_media(std::int64_t index) const;

  struct Sum {
    Tensor loss;             ///< [1]: -log p summed over all targets
    std::int64_t count = 0;  ///< of targets
    std::int64_t right = 0;  ///< of them the likeliest ones
    double reward = 0;       ///< summed over the answers drawn
    std::int64_t drawn = 0;
  };
  /// Of several examples together; `turn` chooses among the texts of each. Throws Error for media
  /// that can't be read.
  Sum operator()(Context& ctx, std::span<const std::int64_t> which, std::int64_t turn) const;

  /// Where the rows of towers are kept, which are then computed once: of those towers that stay as
  /// they are (as the context's tape has it) and see the same each time.
  void keep_features(Context& ctx, const std::filesystem::path& folder);

 private:
  /// What a tower makes of an image or a sound, before the projector.
  struct Rows {
    Tensor rows;
    RowLayout layout;
  };
  struct Batch;
  struct Media;
  struct Draw;
  enum class Medium { image, sound };
  /// What stands around the answers of a task.
  struct Plan {
    Task task;              ///< what stands before the prompt, and between it and the answer
    std::int32_t stop = 0;  ///< behind the answer
  };
  Sum class_loss(Context& ctx, std::span<const std::int64_t> which, std::int64_t turn) const;
  Sum pair_loss(Context& ctx, std::span<const std::int64_t> which, std::int64_t turn) const;
  void open_pairs();
  Tensor loss_of_pairs(Context& ctx, const Tensor& images, const Tensor& texts) const;
  Sum text_loss(Context& ctx, std::span<const std::int64_t> which, std::int64_t turn) const;
  Sum decoder_loss(Context& ctx, const text::LanguageModel& decoder,
                   std::span<const std::int64_t> which, std::int64_t turn) const;
  std::vector<Media> encode_all(Context& ctx, const text::LanguageModel& decoder,
                                std::span<const std::int64_t> which, std::int64_t turn) const;
  Sequence before_answer(Context& ctx, const text::LanguageModel& decoder, const Example& example,
                         const Media& media, const std::string& prompt) const;
  void add_answer(Context& ctx, const text::LanguageModel& decoder, const Example& example,
                  const Media& media, const std::string& prompt,
                  const std::vector<std::int32_t>& answer, float weight, Batch& batch) const;
  Tensor conversation_memory(Context& ctx, const text::LanguageModel& decoder,
                             const Example& example, const Media& media) const;
  void add_conversation(Context& ctx, const text::LanguageModel& decoder, const Example& example,
                        const Media& media, Batch& batch) const;
  void add_drawn(Context& ctx, const text::LanguageModel& decoder,
                 std::span<const std::int64_t> which, std::int64_t turn,
                 const std::vector<Media>& media, const std::vector<std::int32_t>& ids,
                 Batch& batch) const;
  Linear head_for(Context& ctx, const text::LanguageModel& decoder,
                  const std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> candidates(std::int64_t turn, std::int64_t first) const;
  void leave_out(Example& example) const;
  void check(const Example& example);
  void check_conversation(const Example& example);
  void check_length(const Example& example, std::int64_t tokens) const;
  void check_ids(const Example& example, const std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> start_ids() const;
  std::string task_name(const Example& example) const;
  void plan(const std::string& task);
  const Plan& plan_of(const Example& example) const;
  std::vector<std::int32_t> answer_ids(const Example& example, const std::string& text) const;
  std::vector<std::int32_t> text_ids(const Example& example) const;
  audio::Sound load_sound(const Example& example) const;
  Rows tower_rows(Context& ctx, const Example& example, Medium medium, std::int64_t turn) const;
  Rows compute_rows(Context& ctx, const Example& example, Medium medium, std::int64_t turn) const;
  std::vector<Rows> compute_image_rows(Context& ctx, const std::vector<const Example*>& examples,
                                       std::int64_t turn) const;
  std::vector<Rows> image_rows(Context& ctx, std::span<const std::int64_t> which,
                               std::int64_t turn) const;
  bool trains(Context& ctx, Medium medium) const;

  std::shared_ptr<const Model> model_;
  Examples examples_;
  ExampleLossOptions options_;
  std::filesystem::path image_features_, sound_features_;  // empty: computed every time
  std::map<std::string, Plan> plans_;                      // by task
  std::vector<std::string> labels_;
  std::map<std::int64_t, ConversationTokens> conversations_;  // by line
  std::vector<bool> answered_;  // tokens that answers have, for sampled_tokens
  std::optional<AnswerReward> reward_;
  std::optional<DualEncoder> dual_;
  std::int64_t longest_ = 0, targets_ = 0;
};

}  // namespace tessera::fusion
