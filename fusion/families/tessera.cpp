// Our own checkpoints: any image tower and any sound tower project into the token space of a text
// decoder. The format is described in docs/tessera-format.md.
#include <algorithm>

#include "core/error.h"
#include "fusion/adapter.h"
#include "fusion/model.h"

namespace tessera::fusion {
namespace {

std::vector<std::int32_t> read_ids(const Config& config, const char* key) {
  const std::vector<std::int64_t> ids = config.integers(key);
  return {ids.begin(), ids.end()};
}

Consume read_consume(const Config& config) {
  const std::string name = config.string("consume");
  if (name == "memory") return Consume::memory;
  if (name == "splice") return Consume::splice;
  throw FormatError(
      concat(config.where(), ".consume: \"", name, "\" is not one of splice, memory"));
}

void check_decoder(const Config& config, const text::LanguageModel& decoder) {
  if (read_consume(config) == Consume::memory && !decoder.has_cross_attention()) {
    throw FormatError(
        concat(config.where(), ": consume is \"memory\", but the decoder has no cross-attention"));
  }
}

/// "attends_to" of a task: a list of "image", "audio"; absent: both.
void read_attention(const Config& config, Task& task) {
  if (!config.has("attends_to")) return;
  const std::string where = concat(config.where(), ".attends_to: ");
  const std::vector<std::string> media = config.strings("attends_to");
  if (media.empty())
    throw FormatError(concat(where, "the list is empty; expected \"image\", \"audio\" or both"));
  for (const std::string& name : media) {
    if (name != "image" && name != "audio")
      throw FormatError(concat(where, "\"", name, "\" is not one of image, audio"));
  }
  task.attends_to_images = std::ranges::count(media, "image") > 0;
  task.attends_to_sounds = std::ranges::count(media, "audio") > 0;
}

void read_threshold(const Config& config, Task& task, Consume consume) {
  const Config generation = config.child("generation");
  if (!generation.has("no_speech_threshold")) return;
  const std::string where = concat(generation.where(), ".no_speech_threshold: ");
  const double threshold = generation.number("no_speech_threshold");
  if (!(threshold >= 0 && threshold <= 1))
    throw FormatError(concat(where, "expected a probability from 0 to 1, found ", threshold));
  if (consume != Consume::memory)
    throw FormatError(concat(where, "needs a decoder that reads sound as its memory"));
  if (task.start.empty())
    throw FormatError(concat(where, "the task has no start token to be asked after"));
  task.no_speech_threshold = threshold;
}

std::unique_ptr<text::LanguageModel> load_decoder(const Config& config, const Weights& weights) {
  auto decoder = text::load_language_model(config.at("text_config"), weights);
  check_decoder(config, *decoder);
  weights.release_pages();
  return decoder;
}

void load(const CheckpointFiles& files, Model& model) {
  const Config& c = files.config;
  const Weights& w = files.weights;
  if (const std::int64_t version = c.integer("tessera_version"); version != 1) {
    throw UnsupportedError(
        concat(c.where(), ": tessera_version ", version, "; this program reads version 1"));
  }
  model.consume = read_consume(c);
  const std::int64_t width = text::width_of_language_model(c.at("text_config"));
  if (c.has("vision_config")) {
    model.vision = vision::load_tower(c.at("vision_config"), w.at("vision_tower"));
    model.vision_projector = Projector(c.child("vision_projector"), w.at("vision_projector"),
                                       model.vision->width(), width);
    model.image_processor.emplace(files.preprocessor_config.child("image_processor"));
  }
  if (c.has("audio_config")) {
    model.audio = audio::load_tower(c.at("audio_config"), w.at("audio_tower"));
    model.audio_projector =
        Projector(c.child("audio_projector"), w.at("audio_projector"), model.audio->width(), width);
    model.log_mel.emplace(files.preprocessor_config.child("feature_extractor"));
  }
  model.image_token = static_cast<std::int32_t>(c.integer("image_token_id", 0));
  model.audio_token = static_cast<std::int32_t>(c.integer("audio_token_id", 0));
  const Config tasks = c.child("tasks");
  for (const std::string& name : tasks.keys()) {
    const Config task = tasks.at(name);
    model.tasks[name] = {read_ids(task, "start"), read_ids(task, "end"), task.child("generation"),
                         task.string("adapter", "")};
    read_attention(task, model.tasks[name]);
    read_threshold(task, model.tasks[name], model.consume);
    const std::string& adapter = model.tasks[name].adapter;
    if (adapter.empty()) continue;
    const Weights own = w.at("adapters").at(adapter);
    const auto embedding = [&](const char* key) {
      return own.has(key) ? own.get_f32(key, {1, width}) : Tensor();
    };
    model.tasks[name].image_embedding = embedding(kImageEmbedding);
    model.tasks[name].audio_embedding = embedding(kAudioEmbedding);
    if (model.adapted.count(adapter)) continue;
    if (own.names().empty())
      throw FormatError(
          concat(task.where(), ".adapter: the checkpoint has no tensors adapters.", adapter, ".*"));
    own.ignore("");  // read when it is asked for
    model.adapted[adapter] = text::Decoder([c, own, plain = w.at("decoder")] {
      return load_decoder(c, with_own_adapter(plain, own));
    });
  }
  // One decoder is opened at once; of several, those that are asked for.
  const bool several = !model.adapted.empty();
  if (several) {
    w.ignore("decoder.");
    model.decoder = text::Decoder([c, plain = w.at("decoder")] { return load_decoder(c, plain); });
  }
  files.open_decoder(c.at("text_config"), "decoder", model);
  if (!several) check_decoder(c, *model.decoder);
}

}  // namespace

ModelFamily tessera_family() { return {{"tessera"}, load}; }

}  // namespace tessera::fusion
