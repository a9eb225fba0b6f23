#include "fusion/model.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <future>
#include <set>

#include "core/error.h"
#include "core/family.h"
#include "core/layers.h"
#include "core/profile.h"
#include "fusion/adapter.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

Config read_if_present(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored) ? Config::read(file) : Config();
}

bool has_tokenizer(const fs::path& directory) {
  std::error_code ignored;
  return fs::exists(directory / "tokenizer.json", ignored) ||
         fs::exists(directory / "vocab.json", ignored);
}

CheckpointFiles read_files(const fs::path& directory, const OpenOptions& options) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    throw IoError(
        concat(directory.string(),
               ": not a checkpoint directory (with config.json, model.safetensors, ...)"));
  }
  if (!fs::exists(directory / "config.json", error)) {
    throw IoError(concat(directory.string(),
                         ": has no config.json; give the directory of a published checkpoint"));
  }
  CheckpointFiles files{directory,
                        options.config ? *options.config : Config::read(directory / "config.json"),
                        read_if_present(directory / "generation_config.json"),
                        read_if_present(directory / "preprocessor_config.json"),
                        options.weights ? *options.weights
                                        : with_adapters(Weights::open(directory), options.adapters)
                                              .with(options.precision)
                                              .with(options.cache),
                        options.switchable};
  // Old checkpoints have their generation options in config.json.
  if (!fs::exists(directory / "generation_config.json", error))
    files.generation_config = files.config;
  return files;
}

/// A checkpoint of one tower or of a decoder alone.
void load_single(const CheckpointFiles& files, Model& model) {
  const std::string type = files.config.string("model_type");
  const auto decoders = text::families();
  const auto towers = vision::families();
  if (find_family(decoders, type)) {
    files.open_decoder(files.config, "", model);
    if (!files.weights.has("score.weight")) return;
    const Tensor score = files.weights.get("score.weight");
    const std::int64_t classes = score.rank() == 2 ? score.dim(0) : 0;
    model.score.emplace(exact_if_automatic(files.weights.at("score")), model.decoder->width(),
                        classes, Linear::Bias::none);
    model.score_labels = class_labels(files.config, classes);
  } else if (find_family(towers, type)) {
    model.vision = vision::load_tower(files.config, files.weights);
    model.image_processor.emplace(files.preprocessor_config);
  } else {
    std::set<std::string> types;
    const auto add = [&](const auto& list) {
      for (const auto& f : list) types.insert(f.model_types.begin(), f.model_types.end());
    };
    add(families()), add(text::families()), add(vision::families());
    std::string known;
    for (const std::string& name : types) known += (known.empty() ? "" : ", ") + name;
    throw UnsupportedError(concat(files.config.where(), ": model_type \"", type,
                                  "\" is not known; known are ", known));
  }
}

/// None where a dual encoder has one of a kind that is not read (SigLIP's, or CLIP's rules without
/// tokenizer.json): its images, and texts as ids, can be encoded all the same.
std::optional<text::Tokenizer> read_tokenizer(std::future<text::Tokenizer>& tokenizer,
                                              const Model& model) {
  std::error_code ignored;
  if (model.dual && !fs::exists(model.path / "tokenizer.json", ignored)) return std::nullopt;
  try {
    return tokenizer.get();
  } catch (const UnsupportedError&) {
    if (!model.dual) throw;
    return std::nullopt;
  }
}

}  // namespace

void CheckpointFiles::open_decoder(const Config& decoder, const std::string& scope,
                                   Model& model) const {
  const auto part = [scope](const Weights& w) { return scope.empty() ? w : w.at(scope); };
  for (const auto& [name, adapter] : switchable) {
    for (const std::string& layer : adapted_layers(weights, adapter)) {
      if (scope.empty() || layer.starts_with(scope + ".")) continue;
      throw UnsupportedError(concat(adapter.string(), ": changes ", layer,
                                    ", which is no part of the decoder; such an adapter can be "
                                    "merged, not switched"));
    }
    const auto open = [decoder, part, all = weights, adapter = adapter] {
      const Weights adapted =
          with_adapters(all, {adapter}).with(all.precision()).with(all.cache_numbers());
      return text::load_language_model(decoder, part(adapted));
    };
    if (!model.adapted.emplace(name, text::Decoder(open)).second)
      throw ArgumentError(concat("the checkpoint has an adapter \"", name, "\" of its own"));
  }
  if (!model.decoder) model.decoder = text::load_language_model(decoder, part(weights));
}

std::shared_ptr<const Model> Model::open(const fs::path& directory, const OpenOptions& options) {
  const CheckpointFiles files = read_files(directory, options);
  auto model = std::make_shared<Model>();
  model->path = directory;
  model->config = files.config;
  model->generation_config = files.generation_config;
  model->family = files.config.string("model_type");
  // The tokenizer is read beside the weights. An image tower alone has no use for the one of the
  // text tower it was published with.
  const auto towers = vision::families();
  const auto all = families();
  const ModelFamily* family = find_family(all, model->family);
  const bool tower_alone = !family && find_family(towers, model->family);
  std::future<text::Tokenizer> tokenizer;
  if (!tower_alone && has_tokenizer(directory)) {
    tokenizer = std::async(std::launch::async | std::launch::deferred,
                           [&] { return text::Tokenizer::open(directory); });
  }
  if (family) {
    family->load(files, *model);
  } else {
    load_single(files, *model);
  }
  if (!files.switchable.empty() && !model->decoder)
    throw UnsupportedError(concat(directory.string(), ": has no decoder to switch adapters of"));
  if (tokenizer.valid()) model->tokenizer = read_tokenizer(tokenizer, *model);
  if (model->decoder && !model->tokenizer && options.needs_tokenizer) {
    throw IoError(
        concat(directory.string(), ": has no tokenizer.json (nor vocab.json and merges.txt)"));
  }
  model->unread = files.weights.leftovers();
  files.weights.release_pages();
  model->weights = files.weights;
  return model;
}

Tensor Model::encode(Context& ctx, const vision::Image& image) const {
  if (!vision || !image_processor) {
    throw UnsupportedError(
        concat(path.string(), ": this checkpoint has no image tower and can't take images"));
  }
  return encode_pixels(ctx, preprocess(ctx, image));
}

Tensor Model::preprocess(Context& ctx, const vision::Image& image) const {
  const StageScope scope(ctx, "preprocessing");
  return (*image_processor)(image);
}

Tensor Model::encode_pixels(Context& ctx, const Tensor& pixels) const {
  const RowLayout layout{vision->class_tokens(), pixels.dim(1) / vision->patch_size(),
                         pixels.dim(2) / vision->patch_size()};
  return vision_projector(ctx, vision->encode(ctx, pixels), layout);
}

Tensor Model::encode(Context& ctx, const audio::Sound& sound) const {
  if (!audio || !log_mel) {
    throw UnsupportedError(
        concat(path.string(), ": this checkpoint has no sound tower and can't take sound"));
  }
  const std::span<const float> samples(sound.samples);
  const auto window = static_cast<std::size_t>(log_mel->samples_per_window());
  std::vector<Tensor> parts;
  std::int64_t rows = 0;
  for (std::size_t at = 0; at == 0 || at < samples.size(); at += window) {
    const auto piece = samples.subspan(at, std::min(window, samples.size() - at));
    parts.push_back(encode_frames(ctx, (*log_mel)(ctx, piece)));
    rows += parts.back().dim(0);
  }
  if (parts.size() == 1) return parts.front();
  Tensor all = ctx.empty({rows, parts.front().dim(1)});
  float* to = all.data();
  for (const Tensor& part : parts) to = std::copy_n(part.data(), part.numel(), to);
  return all;
}

Tensor Model::encode_frames(Context& ctx, const Tensor& frames) const {
  const Tensor rows = audio->encode(ctx, frames);
  return audio_projector(ctx, rows, {0, 1, rows.dim(0)});
}

std::vector<std::string> Model::labels() const { return vision ? vision->labels() : score_labels; }

Tensor Model::score_texts(Context& ctx, const std::vector<std::vector<std::int32_t>>& texts) const {
  if (!score) {
    throw UnsupportedError(
        concat(path.string(), ": this checkpoint has no classifier of texts (score.weight)"));
  }
  std::vector<KvCache> caches(texts.size(), decoder->new_cache());
  std::vector<text::Sequence> sequences;
  std::vector<std::int32_t> all;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) throw ArgumentError("an empty text has no class");
    all.insert(all.end(), texts[i].begin(), texts[i].end());
    sequences.push_back({&caches[i], std::ssize(texts[i])});
  }
  return (*score)(
      ctx, decoder->forward(ctx, decoder->embed(ctx, all), sequences, text::Outputs::last_rows));
}

Task Model::task(const std::string& name) const {
  for (const std::string& key : {name, std::string("prompt")}) {
    if (const auto found = tasks.find(key); found != tasks.end()) return found->second;
  }
  Task plain;
  if (consume == Consume::memory && config.has("bos_token_id")) {
    plain.start = {static_cast<std::int32_t>(config.integer("bos_token_id"))};
  }
  return plain;
}

const text::LanguageModel& Model::decoder_for(const std::string& name,
                                              const std::string& chosen) const {
  const std::string adapter = chosen.empty() ? task(name).adapter : chosen;
  if (adapter.empty()) return *decoder;
  if (const auto found = adapted.find(adapter); found != adapted.end()) return *found->second;
  std::string known;
  for (const auto& [other, ignored] : adapted) known += concat(known.empty() ? "" : ", ", other);
  throw ArgumentError(
      concat("there is no adapter \"", adapter, "\"", known.empty() ? "" : "; there are ", known));
}

text::SamplingOptions Model::sampling(const std::string& name) const {
  auto options = text::SamplingOptions::from_config(generation_config);
  options.apply(task(name).generation);
  return options;
}

fs::path default_model() {
  if (const char* chosen = std::getenv("TESSERA_MODEL"); chosen && *chosen) return chosen;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path beside = (program.parent_path() / TESSERA_MODELS_BESIDE).lexically_normal();
  std::string places;
  for (const fs::path& models :
       {beside, fs::path(TESSERA_MODELS_SOURCE), fs::path(TESSERA_MODELS_INSTALLED)}) {
    const fs::path directory = models / "default";
    if (fs::exists(directory / "config.json", ignored)) return directory;
    places += concat(places.empty() ? "" : ", ", directory.string());
  }
  throw IoError(concat("the default model was not found (looked in ", places,
                       "); name a checkpoint with --model DIR or TESSERA_MODEL"));
}

}  // namespace tessera::fusion
