#include "fusion/example_loss.h"

#include <algorithm>
#include <deque>

#include "core/error.h"
#include "core/fingerprint.h"
#include "core/layers.h"
#include "core/loss.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/tape.h"
#include "fusion/sequence.h"
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
  if (options_.sampled_tokens > 0)
    answered_.resize(static_cast<std::size_t>(m.decoder->vocab_size()));
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
  const Plan& own = plan_of(example);
  for (std::size_t i = 0; i < example.texts.size(); ++i) {
    const Ids prompt = model_->tokenizer->encode(prompt_before(example, i)),
              ids = answer_ids(example, example.texts[i]);
    check_ids(example, prompt);
    check_ids(example, ids);
    const auto before =
        static_cast<std::int64_t>(own.start.size() + own.end.size() + prompt.size());
    if (!answered_.empty())
      for (const std::int32_t id : ids) answered_[static_cast<std::size_t>(id)] = true;
    const auto answer = static_cast<std::int64_t>(ids.size());
    if (i == 0) targets_ += answer;
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

ExampleLoss::Rows ExampleLoss::compute_rows(Context& ctx, const Example& example, Medium medium,
                                            std::int64_t turn) const {
  if (medium == Medium::sound) {
    const Tensor frames = (*model_->log_mel)(ctx, load_sound(example).samples);
    const Tensor rows = model_->audio->encode(ctx, frames);
    return {rows, {0, 1, rows.dim(0)}};
  }
  vision::Image image = vision::load_image(example.image);
  if (options_.least_view < 1)
    image = vision::random_view(image, options_.least_view,
                                mixed_seed(options_.seed, turn, example.line));
  const Tensor pixels = model_->preprocess(ctx, image);
  const std::int64_t patch = model_->vision->patch_size();
  return {model_->vision->encode(ctx, pixels),
          {model_->vision->class_tokens(), pixels.dim(1) / patch, pixels.dim(2) / patch}};
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
  const auto has = [&](const Example& e) { return !(e.*file).empty(); };
  const auto first = std::ranges::find_if(examples_.list, has);
  if (first == examples_.list.end()) return false;
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
  return examples_.kind == ExampleKind::classification ? class_loss(ctx, which, turn)
                                                       : text_loss(ctx, which, turn);
}

ExampleLoss::Sum ExampleLoss::class_loss(Context& ctx, std::span<const std::int64_t> which,
                                         std::int64_t turn) const {
  std::vector<Tensor> rows;
  Ids targets;
  for (const std::int64_t i : which) {
    const Example& example = examples_.list[static_cast<std::size_t>(i)];
    rows.push_back(
        model_->vision->class_logits(ctx, tower_rows(ctx, example, Medium::image, turn).rows));
    targets.push_back(class_index(examples_, example, labels_, model_->path));
  }
  const Tensor logits = join_rows(ctx, rows);
  return {cross_entropy(ctx, logits, targets, options_.label_smoothing), std::ssize(targets),
          count_right(logits, targets)};
}

/// What goes through a decoder together.
struct ExampleLoss::Batch {
  std::deque<KvCache> caches;  // stay where they are
  std::vector<text::Sequence> sequences;
  std::vector<Tensor> rows;
  Ids targets, places;  // what is learnt, and behind which rows
  std::int32_t at = 0;
  std::vector<Tensor> memories;        // of examples
  std::vector<std::size_t> memory_of;  // which of them each sequence sees; none: kNone
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  /// Makes every memory's keys and values, all in one product, and gives them to the caches.
  void set_memories(Context& ctx, const text::LanguageModel& decoder);
};

void ExampleLoss::Batch::set_memories(Context& ctx, const text::LanguageModel& decoder) {
  if (memories.empty()) return;
  KvCache all = decoder.new_cache();
  decoder.set_memory(ctx, join_rows(ctx, memories), all);
  std::vector<std::int64_t> begin = {0};
  for (const Tensor& memory : memories) begin.push_back(begin.back() + memory.dim(0));
  for (std::size_t i = 0; i < caches.size(); ++i) {
    const std::size_t m = memory_of[i];
    if (m == kNone) continue;
    for (std::int64_t l = 0; l < all.layers(); ++l) {
      const auto& [k, v] = all.layer(l).memory();
      caches[i].layer(l).set_memory(k.slice(begin[m], begin[m + 1]),
                                    v.slice(begin[m], begin[m + 1]));
    }
  }
}

/// One example with some of its texts: its media are encoded once.
void ExampleLoss::add_answers(Context& ctx, const text::LanguageModel& decoder, std::int64_t index,
                              std::int64_t turn, Batch& batch) const {
  const Example& example = examples_.list[static_cast<std::size_t>(index)];
  const Plan& own = plan_of(example);
  Tensor image, sound;
  if (!example.image.empty()) {
    const Rows tower = tower_rows(ctx, example, Medium::image, turn);
    image = model_->vision_projector(ctx, tower.rows, tower.layout);
  }
  if (!example.audio.empty()) {
    const Rows tower = tower_rows(ctx, example, Medium::sound, turn);
    sound = model_->audio_projector(ctx, tower.rows, tower.layout);
  }
  const std::size_t count = example.texts.size(),
                    wanted = std::min(static_cast<std::size_t>(options_.texts), count);
  std::size_t memory = Batch::kNone;
  for (std::size_t i = 0; i < wanted; ++i) {
    const std::size_t text = (static_cast<std::size_t>(turn) * wanted + i) % count;
    Sequence before(ctx, *model_);
    before.add_ids(own.start);
    if (image) before.add_image_rows(image);
    if (sound) before.add_sound_rows(sound);
    if (const std::string& prompt = prompt_before(example, text); !prompt.empty())
      before.add(Text{prompt});
    before.add_ids(own.end);
    before.demand_start();
    if (const Tensor rows = i == 0 ? before.memory() : Tensor()) {
      memory = batch.memories.size();
      batch.memories.push_back(rows);
    }
    Ids answer = answer_ids(example, example.texts[text]);
    const auto first = static_cast<std::int32_t>(before.ids().size()) - 1;
    batch.targets.insert(batch.targets.end(), answer.begin(), answer.end());
    for (std::int32_t j = 0; j < std::ssize(answer); ++j)
      batch.places.push_back(batch.at + first + j);
    answer.pop_back();
    batch.rows.push_back(before.rows());
    if (!answer.empty()) batch.rows.push_back(decoder.embed(ctx, answer));
    const std::int64_t length = first + 1 + std::ssize(answer);
    if (length > decoder.max_positions()) {
      throw FormatError(
          concat(where(examples_, example), ": ", length,
                 " tokens with its images and sounds, but the model's context ends at ",
                 decoder.max_positions()));
    }
    batch.caches.push_back(decoder.new_cache());
    batch.memory_of.push_back(memory);
    batch.sequences.push_back({&batch.caches.back(), length});
    batch.at += static_cast<std::int32_t>(length);
  }
}

/// Those of the answers, and others drawn from (seed, turn, number of the first example).
Ids ExampleLoss::candidates(std::int64_t turn, std::int64_t first) const {
  Ids ids;
  const auto all = static_cast<std::int64_t>(answered_.size());
  for (std::int64_t id = 0; id < all; ++id)
    if (answered_[static_cast<std::size_t>(id)]) ids.push_back(static_cast<std::int32_t>(id));
  std::vector<bool> taken = answered_;
  text::Random random(mixed_seed(options_.seed, turn, first));
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

ExampleLoss::Sum ExampleLoss::decoder_loss(Context& ctx, const text::LanguageModel& decoder,
                                           std::span<const std::int64_t> which,
                                           std::int64_t turn) const {
  Batch batch;
  for (const std::int64_t i : which) add_answers(ctx, decoder, i, turn, batch);
  batch.set_memories(ctx, decoder);
  const Tensor hidden = decoder.forward(ctx, join_rows(ctx, batch.rows), batch.sequences);
  const Tensor last = gather_rows(ctx, hidden, batch.places);
  Tensor logits;
  if (options_.sampled_tokens > 0) {
    const Ids ids = candidates(turn, which.front());
    std::map<std::int32_t, std::int32_t> place;
    for (const std::int32_t id : ids) place[id] = static_cast<std::int32_t>(place.size());
    for (std::int32_t& target : batch.targets) target = place.at(target);
    logits = Linear(decoder.embed(ctx, ids), {}, Precision::in_place)(ctx, last);
  } else {
    logits = decoder.logits(ctx, last);
  }
  return {cross_entropy(ctx, logits, batch.targets, options_.label_smoothing),
          std::ssize(batch.targets), count_right(logits, batch.targets)};
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
  }
  return sum;
}

}  // namespace tessera::fusion
