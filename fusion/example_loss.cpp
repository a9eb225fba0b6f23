#include "fusion/example_loss.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/error.h"
#include "core/fingerprint.h"
#include "core/layers.h"
#include "core/loss.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/random.h"
#include "core/tape.h"
#include "fusion/speech.h"
#include "vision/augment.h"

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

/// The example itself, or what of its conversation has such a file; null: nothing does.
const Example* first_with(const Example& example, fs::path Example::*file) {
  if (!(example.*file).empty()) return &example;
  for (const Example& media : example.media)
    if (!(media.*file).empty()) return &media;
  return nullptr;
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

/// Of what is drawn for one example at one time.
std::uint64_t mixed_seed(std::uint64_t seed, std::int64_t turn, std::int64_t example) {
  return fnv1a(concat(seed, "/", turn, "/", example));
}

/// Some tokens' logits can be had without all others where the output layer is the embedding.
void demand_tied_output(const text::LanguageModel& decoder, const fs::path& path) {
  Context ctx;
  Tensor hidden = Tensor::empty({1, decoder.width()});
  for (std::int64_t i = 0; i < hidden.numel(); ++i)
    hidden.data()[i] = std::sin(static_cast<float>(i + 1));
  const Ids few = {0, static_cast<std::int32_t>(decoder.vocab_size() - 1)};
  const Tensor all = decoder.logits(ctx, hidden),
               own = Linear(decoder.embed(ctx, few), {}, Precision::in_place)(ctx, hidden);
  for (std::size_t i = 0; i < few.size(); ++i) {
    const float expected = all.data()[few[i]], got = own.data()[i];
    if (std::abs(got - expected) > 1e-2f * (1 + std::abs(expected)))
      throw UnsupportedError(concat(path.string(),
                                    ": sampled tokens are for decoders whose output "
                                    "layer is their token embedding (tie_word_embeddings)"));
  }
}

}  // namespace

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
  for (Example& example : examples_.list) leave_out(example);
  const auto any = [&](auto has) { return std::ranges::any_of(examples_.list, has); };
  const auto any_file = [&](fs::path Example::*file) {
    return any([file](const Example& e) { return first_with(e, file) != nullptr; });
  };
  if (any_file(&Example::audio) && (!m.audio || !m.log_mel)) throw lacks("sound tower");
  if (any_file(&Example::image) && (!m.vision || !m.image_processor)) throw lacks("image tower");
  if (m.dual) {
    open_pairs();
    return;
  }
  if (options_.pair_loss)
    throw ArgumentError(concat(m.path.string(), ": is of type ", m.family,
                               "; softmax or sigmoid is for dual encoders (clip, siglip, "
                               "vision-text-dual-encoder)"));
  if (examples_.kind == ExampleKind::classification) {
    labels_ = m.labels();
    if (labels_.empty()) throw lacks("classification head");
    if (any([](const Example& e) { return e.image.empty(); }) && (!m.score || !m.tokenizer))
      throw lacks("classifier of texts");
  } else if (!m.decoder || !m.tokenizer) {
    throw lacks("text decoder");
  }
  if (!options_.answer_prefix) options_.answer_prefix = m.speech || m.audio ? " " : "";
  const auto talks = [](const Example& e) { return e.kind == ExampleKind::conversation; };
  if (any(talks) && !options_.chat_template) options_.chat_template = chat_template_of(m);
  if (options_.sampled_tokens > 0) {
    demand_tied_output(*m.decoder, m.path);
    answered_.resize(static_cast<std::size_t>(m.decoder->vocab_size()));
  }
  for (const Example& example : examples_.list) check(example);
  if (options_.rewards.empty()) return;
  if (options_.draws < 2) throw ArgumentError("a reward needs at least two draws, to be compared");
  reward_.emplace(examples_, options_.rewards);
}

std::string ExampleLoss::task_name(const Example& example) const {
  if (!example.task.empty()) return example.task;
  // Whisper's tasks differ in their start sequence only, which start_ids() makes.
  return options_.task.empty() || model_->speech ? task_of(example.kind) : options_.task;
}

/// The image or sound that an example's task does not attend to; of conversations, encode_all()
/// leaves it out.
void ExampleLoss::leave_out(Example& example) const {
  if (model_->dual || example.kind == ExampleKind::classification) return;
  const std::string name = task_name(example);
  const Task task = model_->task(name);
  try {
    demand_attended(task, name, first_with(example, &Example::image) != nullptr,
                    first_with(example, &Example::audio) != nullptr);
  } catch (const ArgumentError& error) {
    throw FormatError(concat(where(examples_, example), ": ", error.what()));
  }
  if (!task.attends_to_images) example.image.clear();
  if (!task.attends_to_sounds) example.audio.clear();
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
  plans_[name] = {std::move(task), *end};
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

Ids ExampleLoss::text_ids(const Example& example) const {
  return model_->tokenizer->encode(example.texts.front(), {.add_special_tokens = true});
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
    if (!example.image.empty()) return;
    const Ids ids = text_ids(example);
    check_ids(example, ids);
    longest_ = std::max(longest_, std::ssize(ids));
    if (ids.empty()) throw FormatError(concat(where(examples_, example), ": has no tokens"));
    check_length(example, std::ssize(ids));
    return;
  }
  if (example.kind == ExampleKind::conversation) return check_conversation(example);
  plan(task_name(example));
  const Plan& own = plan_of(example);
  for (std::size_t i = 0; i < example.texts.size(); ++i) {
    const Ids prompt = model_->tokenizer->encode(prompt_before(example, i)),
              ids = answer_ids(example, example.texts[i]);
    check_ids(example, prompt);
    check_ids(example, ids);
    const auto before =
        static_cast<std::int64_t>(own.task.start.size() + own.task.end.size() + prompt.size());
    if (!answered_.empty())
      for (const std::int32_t id : ids) answered_[static_cast<std::size_t>(id)] = true;
    const auto answer = static_cast<std::int64_t>(ids.size());
    if (i == 0) targets_ += answer;
    longest_ = std::max(longest_, before + answer);
    check_length(example, before + answer);
  }
}

void ExampleLoss::check_conversation(const Example& example) {
  ConversationTokens tokens;
  try {
    tokens = encode_conversation(*model_->tokenizer, *options_.chat_template, example);
  } catch (const FormatError& error) {
    throw FormatError(concat(where(examples_, example), ": ", error.what()));
  }
  check_ids(example, tokens.ids);
  check_length(example, std::ssize(tokens.ids));
  longest_ = std::max(longest_, std::ssize(tokens.ids));
  for (std::size_t i = 1; i < tokens.ids.size(); ++i) {
    if (!tokens.answer[i]) continue;
    ++targets_;
    if (!answered_.empty()) answered_[static_cast<std::size_t>(tokens.ids[i])] = true;
  }
  conversations_[example.line] = std::move(tokens);
}

void ExampleLoss::check_length(const Example& example, std::int64_t tokens) const {
  if (tokens <= model_->decoder->max_positions()) return;
  const bool media = first_with(example, &Example::image) || first_with(example, &Example::audio);
  throw FormatError(concat(where(examples_, example), ": ", tokens, " tokens",
                           media ? " with its images and sounds" : "",
                           ", but the model's context ends at ", model_->decoder->max_positions(),
                           "; shorten it"));
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
    for (const Example& media : example.media) {
      if (!media.audio.empty()) load_sound(media);
      if (!media.image.empty()) vision::load_image(media.image);
    }
  } catch (const Error& error) {
    throw FormatError(concat(where(examples_, example), ": ", error.what()));
  }
}

ExampleLoss::Rows ExampleLoss::compute_rows(Context& ctx, const Example& example, Medium medium,
                                            std::int64_t turn) const {
  if (medium == Medium::sound) {
    const Tensor frames = (*model_->log_mel)(ctx, load_sound(example).samples);
    const Tensor rows = model_->audio->encode(ctx, frames);
    return {rows, {0, 1, rows.dim(0)}};
  }
  return compute_image_rows(ctx, {&example}, turn).front();
}

/// Of several images in one pass.
std::vector<ExampleLoss::Rows> ExampleLoss::compute_image_rows(
    Context& ctx, const std::vector<const Example*>& examples, std::int64_t turn) const {
  std::vector<Tensor> pixels(examples.size());
  ctx.parallel_for(std::ssize(examples), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    vision::Image image = vision::load_image(examples[at]->image);
    if (options_.least_view < 1)
      image = vision::random_view(image, options_.least_view,
                                  mixed_seed(options_.seed, turn, examples[at]->line));
    pixels[at] = (*model_->image_processor)(image);
  });
  const std::int64_t patch = model_->vision->patch_size();
  std::vector<Rows> out;
  for (const Tensor& rows : model_->vision->encode(ctx, pixels)) {
    const Tensor& p = pixels[out.size()];
    const std::int64_t seen = dual_ ? model_->vision->pooled_rows() : 0;
    out.push_back({seen > 0 ? rows.slice(0, seen) : rows,
                   {model_->vision->class_tokens(), p.dim(1) / patch, p.dim(2) / patch}});
  }
  return out;
}

/// The rows of the examples' images, in their order; those that are not kept are computed together.
std::vector<ExampleLoss::Rows> ExampleLoss::image_rows(Context& ctx,
                                                       std::span<const std::int64_t> which,
                                                       std::int64_t turn) const {
  const StageScope scope(ctx, "towers");
  std::vector<const Example*> examples;
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    if (!example.image.empty()) examples.push_back(&example);
  }
  if (examples.empty()) return {};
  if (image_features_.empty()) return compute_image_rows(ctx, examples, turn);
  std::vector<Rows> out;
  for (const Example* example : examples)
    out.push_back(tower_rows(ctx, *example, Medium::image, turn));
  return out;
}

ExampleLoss::Rows ExampleLoss::tower_rows(Context& ctx, const Example& example, Medium medium,
                                          std::int64_t turn) const {
  const StageScope scope(ctx, "towers");
  const fs::path& folder = medium == Medium::sound ? sound_features_ : image_features_;
  if (folder.empty()) return compute_rows(ctx, example, medium, turn);
  const TapeScope unrecorded(ctx, nullptr);
  const fs::path& media = medium == Medium::sound ? example.audio : example.image;
  const fs::path file = folder / feature_name(*model_, media);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    const Rows made = compute_rows(ctx, example, medium, turn);
    const Tensor layout = Tensor::from(std::vector<float>{static_cast<float>(made.layout.extra),
                                                          static_cast<float>(made.layout.rows),
                                                          static_cast<float>(made.layout.columns)},
                                       {3});
    make_folders(folder);
    save_safetensors(file, {{"layout", layout}, {"rows", made.rows}});
    return made;
  }
  const Weights kept = Weights::open(file);
  const std::vector<float> layout = kept.get_f32("layout", {3}).to_vector();
  return {kept.get("rows").to_f32(),
          {static_cast<std::int64_t>(layout[0]), static_cast<std::int64_t>(layout[1]),
           static_cast<std::int64_t>(layout[2])}};
}

/// Whether what is trained is in a tower or below it: the first example that has such tells.
bool ExampleLoss::trains(Context& ctx, Medium medium) const {
  if (!ctx.tape) return false;
  const auto file = medium == Medium::sound ? &Example::audio : &Example::image;
  const Example* first = nullptr;
  for (const Example& e : examples_.list)
    if ((first = first_with(e, file))) break;
  if (!first) return false;
  const bool wanted = ctx.tape->wants(compute_rows(ctx, *first, medium, 0).rows);
  ctx.tape->clear();
  return wanted;
}

void ExampleLoss::keep_features(Context& ctx, const fs::path& folder) {
  const bool views = options_.least_view < 1;
  image_features_ = views || trains(ctx, Medium::image) ? fs::path() : folder;
  sound_features_ = trains(ctx, Medium::sound) ? fs::path() : folder;
}

ExampleLoss::Sum ExampleLoss::operator()(Context& ctx, std::span<const std::int64_t> which,
                                         std::int64_t turn) const {
  if (dual_) return pair_loss(ctx, which, turn);
  return examples_.kind == ExampleKind::classification ? class_loss(ctx, which, turn)
                                                       : text_loss(ctx, which, turn);
}

ExampleLoss::Sum ExampleLoss::class_loss(Context& ctx, std::span<const std::int64_t> which,
                                         std::int64_t turn) const {
  std::vector<Tensor> rows;
  std::vector<Ids> texts;
  Ids targets;
  for (const Rows& image : image_rows(ctx, which, turn))
    rows.push_back(model_->vision->class_logits(ctx, image.rows));
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    targets.push_back(class_index(examples_, example, labels_, model_->path));
    if (example.image.empty()) texts.push_back(text_ids(example));
  }
  const Tensor logits = texts.empty() ? join_rows(ctx, rows) : model_->score_texts(ctx, texts);
  return {cross_entropy(ctx, logits, targets, options_.label_smoothing), std::ssize(targets),
          count_right(logits, targets)};
}

/// Of one example, encoded once: projected rows, and a cache that has seen them as its memory.
struct ExampleLoss::Media {
  Tensor image, sound;
  std::vector<Tensor> placed;  // or those of a conversation, in order
  KvCache seen;
};

/// What goes through a decoder together.
struct ExampleLoss::Batch {
  std::deque<KvCache> caches;  // stay where they are
  std::vector<text::Sequence> sequences;
  std::vector<Tensor> rows;
  Ids targets, places;  // what is learnt, and behind which rows
  std::vector<float> weights;
  std::int32_t at = 0;
  double reward = 0;
  std::int64_t drawn = 0;

  /// Rows of one more sequence, which are in `rows` already.
  void add_sequence(const KvCache& seen, std::int64_t length) {
    caches.push_back(seen.clone());
    sequences.push_back({&caches.back(), length});
    at += static_cast<std::int32_t>(length);
  }
};

/// Also makes all memories' keys and values, in one product.
std::vector<ExampleLoss::Media> ExampleLoss::encode_all(Context& ctx,
                                                        const text::LanguageModel& decoder,
                                                        std::span<const std::int64_t> which,
                                                        std::int64_t turn) const {
  std::vector<Media> all;
  std::vector<Tensor> memories;
  std::vector<std::int64_t> begin = {0};
  const std::vector<Rows> images = image_rows(ctx, which, turn);
  auto image = images.begin();
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    all.emplace_back();
    if (!example.image.empty()) {
      all.back().image = model_->vision_projector(ctx, image->rows, image->layout);
      ++image;
    }
    if (!example.audio.empty()) {
      const Rows tower = tower_rows(ctx, example, Medium::sound, turn);
      all.back().sound = model_->audio_projector(ctx, tower.rows, tower.layout);
    }
    const Task task = model_->task(task_name(example));
    for (const Example& media : example.media) {
      const bool sound = !media.audio.empty();
      if (!(sound ? task.attends_to_sounds : task.attends_to_images)) {
        all.back().placed.emplace_back();
        continue;
      }
      const Rows tower = tower_rows(ctx, media, sound ? Medium::sound : Medium::image, turn);
      const Projector& projector = sound ? model_->audio_projector : model_->vision_projector;
      all.back().placed.push_back(projector(ctx, tower.rows, tower.layout));
    }
    all.back().seen = decoder.new_cache();
    const Tensor memory = example.kind == ExampleKind::conversation
                              ? conversation_memory(ctx, decoder, example, all.back())
                              : before_answer(ctx, decoder, example, all.back(), "").memory();
    if (memory) memories.push_back(memory);
    begin.push_back(begin.back() + (memory ? memory.dim(0) : 0));
  }
  if (memories.empty()) return all;
  KvCache together = decoder.new_cache();
  decoder.set_memory(ctx, join_rows(ctx, memories), together);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (begin[i] == begin[i + 1]) continue;
    for (std::int64_t l = 0; l < together.layers(); ++l) {
      const KeyValues seen = together.layer(l).memory().as_rows(ctx);
      all[i].seen.layer(l).set_memory(ctx, seen.k.slice(begin[i], begin[i + 1]),
                                      seen.v.slice(begin[i], begin[i + 1]));
    }
  }
  return all;
}

Sequence ExampleLoss::before_answer(Context& ctx, const text::LanguageModel& decoder,
                                    const Example& example, const Media& media,
                                    const std::string& prompt) const {
  const Task& own = plan_of(example).task;
  Sequence before(ctx, *model_, decoder, own);
  before.add_ids(own.start);
  if (media.image) before.add_image_rows(media.image);
  if (media.sound) before.add_sound_rows(media.sound);
  if (!prompt.empty()) before.add(Text{prompt});
  before.add_ids(own.end);
  before.demand_start();
  return before;
}

void ExampleLoss::add_answer(Context& ctx, const text::LanguageModel& decoder,
                             const Example& example, const Media& media, const std::string& prompt,
                             const Ids& answer, float weight, Batch& batch) const {
  const Sequence before = before_answer(ctx, decoder, example, media, prompt);
  const auto first = static_cast<std::int32_t>(before.ids().size()) - 1;
  batch.targets.insert(batch.targets.end(), answer.begin(), answer.end());
  batch.weights.insert(batch.weights.end(), answer.size(), weight);
  for (std::int32_t j = 0; j < std::ssize(answer); ++j)
    batch.places.push_back(batch.at + first + j);
  batch.rows.push_back(before.rows());
  const std::span<const std::int32_t> seen(answer.data(), answer.size() - 1);
  if (!seen.empty()) batch.rows.push_back(decoder.embed(ctx, seen));
  const std::int64_t length = first + std::ssize(answer);
  check_length(example, length);
  batch.add_sequence(media.seen, length);
}

namespace {

void add_placed(Sequence& sequence, const Example& media, const Tensor& rows) {
  media.image.empty() ? sequence.add_sound_rows(rows) : sequence.add_image_rows(rows);
}

}  // namespace

/// Empty where images and sounds are spliced in, and where there are none.
Tensor ExampleLoss::conversation_memory(Context& ctx, const text::LanguageModel& decoder,
                                        const Example& example, const Media& media) const {
  const Task task = model_->task(task_name(example));
  Sequence sequence(ctx, *model_, decoder, task);
  for (std::size_t i = 0; i < media.placed.size(); ++i)
    add_placed(sequence, example.media[i], media.placed[i]);
  return sequence.memory();
}

/// All of its answers at once.
void ExampleLoss::add_conversation(Context& ctx, const text::LanguageModel& decoder,
                                   const Example& example, const Media& media, Batch& batch) const {
  const ConversationTokens& all = conversations_.at(example.line);
  ConversationTokens seen = all;
  seen.ids.pop_back();
  for (std::size_t& place : seen.media) place = std::min(place, seen.ids.size());
  const Task task = model_->task(task_name(example));
  Sequence sequence(ctx, *model_, decoder, task);
  std::vector<std::int32_t> row_of = sequence.add_conversation(
      seen, [&](std::size_t i) { add_placed(sequence, example.media[i], media.placed[i]); });
  const std::int64_t length = std::ssize(sequence.ids());
  check_length(example, length);
  row_of.push_back(static_cast<std::int32_t>(length));
  for (std::size_t i = 1; i < all.ids.size(); ++i) {
    if (!all.answer[i]) continue;
    batch.targets.push_back(all.ids[i]);
    batch.weights.push_back(1);
    batch.places.push_back(batch.at + row_of[i] - 1);
  }
  batch.rows.push_back(sequence.rows());
  batch.add_sequence(media.seen, length);
}

/// An answer while it is drawn.
struct ExampleLoss::Draw {
  const Example& example;
  const Media& media;
  KvCache cache;
  Ids ids;
  Random random;
  bool ended = false;
};

/// Draws answers of captions that have no prompt, all side by side, and adds each with
/// what it is better than the others as its weight.
void ExampleLoss::add_drawn(Context& ctx, const text::LanguageModel& decoder,
                            std::span<const std::int64_t> which, std::int64_t turn,
                            const std::vector<Media>& media, const Ids& ids, Batch& batch) const {
  constexpr std::size_t kMostTokens = 32;
  const auto draws = static_cast<std::size_t>(options_.draws);
  std::deque<Draw> all;
  {
    const TapeScope unrecorded(ctx, nullptr);
    std::vector<text::Sequence> sequences;
    std::vector<Tensor> rows;
    std::vector<Draw*> active;
    for (std::size_t i = 0; i < which.size(); ++i) {
      const Example& example = examples_.list[static_cast<std::size_t>(which[i])];
      if (example.kind != ExampleKind::caption || unprompted(example).empty()) continue;
      const Sequence before = before_answer(ctx, decoder, example, media[i], "");
      for (std::size_t j = 0; j < draws; ++j) {
        all.push_back({example,
                       media[i],
                       media[i].seen.clone(),
                       {},
                       Random(mixed_seed(options_.seed + j + 1, turn, example.line))});
        active.push_back(&all.back());
        rows.push_back(before.rows());
        sequences.push_back({&all.back().cache, std::ssize(before.ids())});
      }
    }
    while (!active.empty()) {
      const Tensor hidden =
          decoder.forward(ctx, join_rows(ctx, rows), sequences, text::Outputs::last_rows);
      const Tensor scores = head_for(ctx, decoder, ids)(ctx, hidden);
      std::vector<text::Candidate> rivals(static_cast<std::size_t>(scores.dim(1)));
      std::vector<Draw*> going;
      Ids next;
      sequences.clear();
      for (std::size_t i = 0; i < active.size(); ++i) {
        Draw& draw = *active[i];
        const float* row = scores[static_cast<std::int64_t>(i)].data();
        for (std::size_t k = 0; k < rivals.size(); ++k)
          rivals[k] = {ids.empty() ? static_cast<std::int32_t>(k) : ids[k], row[k]};
        draw.ids.push_back(text::draw(rivals, draw.random.uniform()));
        draw.ended = draw.ids.back() == plan_of(draw.example).stop;
        const bool full =
            draw.ids.size() >= kMostTokens || draw.cache.length() >= decoder.max_positions();
        if (draw.ended || full) continue;
        next.push_back(draw.ids.back());
        sequences.push_back({&draw.cache, 1});
        going.push_back(&draw);
      }
      active = going;
      if (!next.empty()) rows = {decoder.embed(ctx, next)};
    }
  }
  for (std::size_t first = 0; first < all.size(); first += draws) {
    std::vector<double> rewards;
    double sum = 0;
    for (std::size_t j = 0; j < draws; ++j) {
      const Draw& draw = all[first + j];
      Ids text = draw.ids;
      if (draw.ended) text.pop_back();
      rewards.push_back((*reward_)(draw.example, model_->tokenizer->decode(text), draw.ended));
      sum += rewards.back();
    }
    batch.reward += sum;
    batch.drawn += options_.draws;
    for (std::size_t j = 0; j < draws; ++j) {
      const double others = (sum - rewards[j]) / static_cast<double>(draws - 1);
      add_answer(ctx, decoder, all[first + j].example, all[first + j].media, "", all[first + j].ids,
                 static_cast<float>(rewards[j] - others), batch);
    }
  }
}

/// The tokens of the answers, and others drawn from (seed, turn, number of the first example);
/// none: all tokens are.
Ids ExampleLoss::candidates(std::int64_t turn, std::int64_t first) const {
  Ids ids;
  if (answered_.empty()) return ids;
  const auto all = static_cast<std::int64_t>(answered_.size());
  for (std::int64_t id = 0; id < all; ++id)
    if (answered_[static_cast<std::size_t>(id)]) ids.push_back(static_cast<std::int32_t>(id));
  std::vector<bool> taken = answered_;
  Random random(mixed_seed(options_.seed, turn, first));
  const std::int64_t others = std::min(options_.sampled_tokens, all - std::ssize(ids));
  for (std::int64_t drawn = 0; drawn < others;) {
    const auto id = static_cast<std::size_t>(random.uniform() * static_cast<double>(all));
    if (taken[id]) continue;
    taken[id] = true;
    ids.push_back(static_cast<std::int32_t>(id));
    ++drawn;
  }
  return ids;
}

/// The output layer, of all tokens or of some.
Linear ExampleLoss::head_for(Context& ctx, const text::LanguageModel& decoder,
                             const Ids& ids) const {
  return ids.empty() ? decoder.head() : Linear(decoder.embed(ctx, ids), {}, Precision::in_place);
}

ExampleLoss::Sum ExampleLoss::decoder_loss(Context& ctx, const text::LanguageModel& decoder,
                                           std::span<const std::int64_t> which,
                                           std::int64_t turn) const {
  Batch batch;
  const std::vector<Media> media = encode_all(ctx, decoder, which, turn);
  const Ids ids = candidates(turn, which.front());
  if (reward_) add_drawn(ctx, decoder, which, turn, media, ids, batch);
  for (std::size_t i = 0; i < which.size(); ++i) {
    const Example& example = examples_.list[static_cast<std::size_t>(which[i])];
    if (example.kind == ExampleKind::conversation) {
      add_conversation(ctx, decoder, example, media[i], batch);
      continue;
    }
    const std::size_t count = example.texts.size(),
                      wanted = std::min(static_cast<std::size_t>(options_.texts), count);
    for (std::size_t j = 0; j < wanted; ++j) {
      const std::size_t text = (static_cast<std::size_t>(turn) * wanted + j) % count;
      const std::string& prompt = prompt_before(example, text);
      if (reward_ && example.kind == ExampleKind::caption && prompt.empty()) continue;
      add_answer(ctx, decoder, example, media[i], prompt, answer_ids(example, example.texts[text]),
                 1, batch);
    }
  }
  if (batch.rows.empty()) return {Tensor::zeros({1})};
  const Tensor hidden = decoder.forward(ctx, join_rows(ctx, batch.rows), batch.sequences);
  if (!ids.empty()) {
    std::map<std::int32_t, std::int32_t> place;
    for (const std::int32_t id : ids) place[id] = static_cast<std::int32_t>(place.size());
    for (std::int32_t& target : batch.targets) target = place.at(target);
  }
  const TokenLoss sum =
      cross_entropy(ctx, head_for(ctx, decoder, ids), gather_rows(ctx, hidden, batch.places),
                    batch.targets, options_.label_smoothing, batch.weights);
  return {sum.loss, std::ssize(batch.targets), sum.right, batch.reward, batch.drawn};
}

/// Decoders with and without adapters take their examples one after the other.
ExampleLoss::Sum ExampleLoss::text_loss(Context& ctx, std::span<const std::int64_t> which,
                                        std::int64_t turn) const {
  std::vector<std::pair<const text::LanguageModel*, std::vector<std::int64_t>>> groups;
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    const text::LanguageModel* decoder = &model_->decoder_for(task_name(example));
    const auto own = std::ranges::find(groups, decoder, &decltype(groups)::value_type::first);
    (own == groups.end() ? groups.emplace_back(decoder, std::vector<std::int64_t>{}) : *own)
        .second.push_back(i);
  }
  Sum sum;
  for (const auto& [decoder, own] : groups) {
    const Sum part = decoder_loss(ctx, *decoder, own, turn);
    sum.loss = sum.loss ? add(ctx, sum.loss, part.loss) : part.loss;
    sum.count += part.count;
    sum.right += part.right;
    sum.reward += part.reward;
    sum.drawn += part.drawn;
  }
  return sum;
}

}  // namespace tessera::fusion
