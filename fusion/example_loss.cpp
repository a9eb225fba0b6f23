#include "fusion/example_loss.h"

#include <algorithm>

#include "core/error.h"
#include "core/fingerprint.h"
#include "core/loss.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/tape.h"
#include "fusion/sequence.h"
#include "fusion/speech.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

/// A name for the rows of a file that changes when the file or the checkpoint does.
std::string feature_name(const Model& model, const fs::path& file) {
  std::string key = file_state(file);
  for (const char* part : {"config.json", "preprocessor_config.json", "model.safetensors",
                           "model.safetensors.index.json"})
    key += "|" + file_state(model.path / part);
  return kept_name(fnv1a(key));
}

std::int64_t count_right(const Tensor& logits, std::span<const std::int32_t> targets) {
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < logits.dim(0); ++i) {
    const float* row = logits.data() + i * logits.stride(0);
    right +=
        std::max_element(row, row + logits.dim(1)) - row == targets[static_cast<std::size_t>(i)];
  }
  return right;
}

}  // namespace

/// What a tower makes of an image or a sound, before the projector.
struct ExampleLoss::Rows {
  Tensor rows;
  RowLayout layout;
};

ExampleLoss::ExampleLoss(std::shared_ptr<const Model> model, Examples examples,
                         const ExampleLossOptions& options)
    : model_(std::move(model)), examples_(std::move(examples)), options_(options) {
  const Model& m = *model_;
  const auto lacks = [&](const char* what) {
    return UnsupportedError(concat(m.path.string(), ": this checkpoint has no ", what,
                                   " to learn the examples of ", examples_.file.string()));
  };
  if (examples_.kind == ExampleKind::prediction)
    throw ArgumentError(concat(examples_.file.string(),
                               ": predictions are to be scored (tessera evaluate), not learnt"));
  const auto any = [&](auto has) { return std::ranges::any_of(examples_.list, has); };
  if (any([](const Example& e) { return !e.audio.empty(); }) && (!m.audio || !m.log_mel))
    throw lacks("sound tower");
  if (any([](const Example& e) { return !e.image.empty(); }) && (!m.vision || !m.image_processor))
    throw lacks("image tower");
  if (examples_.kind == ExampleKind::classification) {
    labels_ = m.vision->labels();
    if (labels_.empty()) throw lacks("classification head");
  } else if (!m.decoder || !m.tokenizer) {
    throw lacks("text decoder");
  }
  if (!options_.answer_prefix) options_.answer_prefix = m.speech || m.audio ? " " : "";
  for (const Example& example : examples_.list) check(example);
}

std::string ExampleLoss::task_name(const Example& example) const {
  if (!example.task.empty()) return example.task;
  // Whisper's tasks differ in their start sequence only, which start_ids() makes.
  return options_.task.empty() || model_->speech ? task_of(example.kind) : options_.task;
}

void ExampleLoss::plan(const std::string& name) {
  if (plans_.count(name)) return;
  Task task = model_->task(name);
  if (model_->speech) task.start = start_ids();
  const Ids ends = model_->sampling(name).stop_tokens;
  const auto end =
      ends.empty() ? model_->tokenizer->special("eos_token") : std::optional(ends.front());
  if (!end) {
    throw UnsupportedError(concat(model_->path.string(),
                                  ": neither the checkpoint nor its tokenizer has an end token"));
  }
  plans_[name] = {std::move(task.start), std::move(task.end), *end};
}

const ExampleLoss::Plan& ExampleLoss::plan_of(const Example& example) const {
  return plans_.at(task_name(example));
}

Ids ExampleLoss::start_ids() const {
  const SpeechTokens& tokens = *model_->speech;
  const bool named = !options_.language.empty();
  std::optional<std::int32_t> language;
  if (named) language = tokens.language_id(options_.language);
  if (!named && !tokens.languages.empty())
    throw ArgumentError("a multilingual checkpoint has to be told the language of the examples");
  return tokens.start_sequence(language, named, options_.task, false);
}

Ids ExampleLoss::answer_ids(const Example& example, const std::string& text) const {
  const bool media = !example.image.empty() || !example.audio.empty();
  Ids ids = model_->tokenizer->encode(media ? *options_.answer_prefix + text : text);
  ids.push_back(plan_of(example).stop);
  return ids;
}

void ExampleLoss::check_ids(const Example& example, const Ids& ids) const {
  for (const std::int32_t id : ids) {
    if (id < model_->decoder->vocab_size()) continue;
    throw FormatError(concat(where(examples_, example), ": token ", id, " (\"",
                             model_->tokenizer->token(id), "\") is outside the decoder's ",
                             model_->decoder->vocab_size(),
                             " tokens; tokenizer and weights do not belong together"));
  }
}

void ExampleLoss::check(const Example& example) {
  if (examples_.kind == ExampleKind::classification) {
    ++targets_;
    class_index(examples_, example, labels_, model_->path);
    return;
  }
  plan(task_name(example));
  const Ids prompt = model_->tokenizer->encode(example.prompt);
  check_ids(example, prompt);
  const Plan& own = plan_of(example);
  const auto before = static_cast<std::int64_t>(own.start.size() + own.end.size() + prompt.size());
  for (const std::string& text : example.texts) {
    const Ids ids = answer_ids(example, text);
    check_ids(example, ids);
    const auto answer = static_cast<std::int64_t>(ids.size());
    if (&text == &example.texts.front()) targets_ += answer;
    longest_ = std::max(longest_, before + answer);
    if (before + answer > model_->decoder->max_positions()) {
      throw FormatError(concat(where(examples_, example), ": ", before + answer,
                               " tokens, but the model's context ends at ",
                               model_->decoder->max_positions(), "; shorten it"));
    }
  }
}

audio::Sound ExampleLoss::load_sound(const Example& example) const {
  audio::Sound sound = audio::load_sound(example.audio);
  const std::int64_t window = model_->log_mel->samples_per_window();
  if (std::ssize(sound.samples) > window) {
    throw ArgumentError(concat(example.audio.string(), ": longer than ",
                               static_cast<double>(window) / audio::kSampleRate,
                               " s; cut it into shorter recordings"));
  }
  return sound;
}

void ExampleLoss::check_media(std::int64_t index) const {
  const Example& example = examples_.list[static_cast<std::size_t>(index)];
  try {
    if (!example.audio.empty()) load_sound(example);
    if (!example.image.empty()) vision::load_image(example.image);
  } catch (const Error& error) {
    throw FormatError(concat(where(examples_, example), ": ", error.what()));
  }
}

ExampleLoss::Rows ExampleLoss::compute_rows(Context& ctx, const Example& example,
                                            Medium medium) const {
  if (medium == Medium::sound) {
    const Tensor frames = (*model_->log_mel)(ctx, load_sound(example).samples);
    const Tensor rows = model_->audio->encode(ctx, frames);
    return {rows, {0, 1, rows.dim(0)}};
  }
  const Tensor pixels = model_->preprocess(ctx, vision::load_image(example.image));
  const std::int64_t patch = model_->vision->patch_size();
  return {model_->vision->encode(ctx, pixels),
          {model_->vision->class_tokens(), pixels.dim(1) / patch, pixels.dim(2) / patch}};
}

ExampleLoss::Rows ExampleLoss::tower_rows(Context& ctx, const Example& example,
                                          Medium medium) const {
  const StageScope scope(ctx, "towers");
  if (features_.empty()) return compute_rows(ctx, example, medium);
  const TapeScope unrecorded(ctx, nullptr);
  const fs::path& media = medium == Medium::sound ? example.audio : example.image;
  const fs::path file = features_ / feature_name(*model_, media);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    const Rows made = compute_rows(ctx, example, medium);
    const Tensor layout = Tensor::from(std::vector<float>{static_cast<float>(made.layout.extra),
                                                          static_cast<float>(made.layout.rows),
                                                          static_cast<float>(made.layout.columns)},
                                       {3});
    make_folders(features_);
    save_safetensors(file, {{"layout", layout}, {"rows", made.rows}});
    return made;
  }
  const Weights kept = Weights::open(file);
  const std::vector<float> layout = kept.get_f32("layout", {3}).to_vector();
  return {kept.get("rows").to_f32(),
          {static_cast<std::int64_t>(layout[0]), static_cast<std::int64_t>(layout[1]),
           static_cast<std::int64_t>(layout[2])}};
}

bool ExampleLoss::trains_tower(Context& ctx) const {
  if (!ctx.tape) return false;
  bool wanted = false, image = false, sound = false;  // of each, one example tells
  for (const Example& example : examples_.list) {
    if (!image && !example.image.empty()) {
      wanted = wanted || ctx.tape->wants(compute_rows(ctx, example, Medium::image).rows);
      image = true;
    }
    if (!sound && !example.audio.empty()) {
      wanted = wanted || ctx.tape->wants(compute_rows(ctx, example, Medium::sound).rows);
      sound = true;
    }
  }
  ctx.tape->clear();
  return wanted;
}

ExampleLoss::Sum ExampleLoss::operator()(Context& ctx, std::span<const std::int64_t> which,
                                         std::int64_t turn) const {
  return examples_.kind == ExampleKind::classification ? class_loss(ctx, which)
                                                       : text_loss(ctx, which, turn);
}

ExampleLoss::Sum ExampleLoss::class_loss(Context& ctx, std::span<const std::int64_t> which) const {
  std::vector<Tensor> rows;
  Ids targets;
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    rows.push_back(model_->vision->class_logits(ctx, tower_rows(ctx, example, Medium::image).rows));
    targets.push_back(class_index(examples_, example, labels_, model_->path));
  }
  const Tensor logits = join_rows(ctx, rows);
  return {cross_entropy(ctx, logits, targets, options_.label_smoothing), std::ssize(targets),
          count_right(logits, targets)};
}

ExampleLoss::Sum ExampleLoss::text_loss(Context& ctx, std::span<const std::int64_t> which,
                                        std::int64_t turn) const {
  const text::LanguageModel& decoder = *model_->decoder;
  std::vector<KvCache> caches(which.size(), decoder.new_cache());
  std::vector<text::Sequence> sequences;
  std::vector<Tensor> rows;
  Ids targets, places;  // what is learnt, and behind which rows
  std::int32_t at = 0;
  for (std::size_t i = 0; i < which.size(); ++i) {
    const Example& example = examples_.list[static_cast<std::size_t>(which[i])];
    const std::string& text = example.texts[static_cast<std::size_t>(turn) % example.texts.size()];
    const Plan& own = plan_of(example);
    Ids answer = answer_ids(example, text);
    Sequence before(ctx, *model_);
    before.add_ids(own.start);
    if (!example.image.empty()) {
      const Rows tower = tower_rows(ctx, example, Medium::image);
      before.add_image_rows(model_->vision_projector(ctx, tower.rows, tower.layout));
    }
    if (!example.audio.empty()) {
      const Rows tower = tower_rows(ctx, example, Medium::sound);
      before.add_sound_rows(model_->audio_projector(ctx, tower.rows, tower.layout));
    }
    if (!example.prompt.empty()) before.add(Text{example.prompt});
    before.add_ids(own.end);
    before.demand_start();
    if (const Tensor memory = before.memory()) decoder.set_memory(ctx, memory, caches[i]);
    const auto first = static_cast<std::int32_t>(before.ids().size()) - 1;
    targets.insert(targets.end(), answer.begin(), answer.end());
    for (std::int32_t j = 0; j < std::ssize(answer); ++j) places.push_back(at + first + j);
    answer.pop_back();
    rows.push_back(before.rows());
    if (!answer.empty()) rows.push_back(decoder.embed(ctx, answer));
    const std::int64_t length = first + 1 + std::ssize(answer);
    if (length > decoder.max_positions()) {
      throw FormatError(
          concat(where(examples_, example), ": ", length,
                 " tokens with its images and sounds, but the model's context ends at ",
                 decoder.max_positions()));
    }
    sequences.push_back({&caches[i], length});
    at += static_cast<std::int32_t>(length);
  }
  const Tensor hidden = decoder.forward(ctx, join_rows(ctx, rows), sequences);
  const Tensor logits = decoder.logits(ctx, gather_rows(ctx, hidden, places));
  return {cross_entropy(ctx, logits, targets, options_.label_smoothing), std::ssize(targets),
          count_right(logits, targets)};
}

}  // namespace tessera::fusion
