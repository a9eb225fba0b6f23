// Our own checkpoints: any image tower and any sound tower project into the token space of a text
// decoder. The format is described in docs/tessera-format.md.
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

void load(const CheckpointFiles& files, Model& model) {
  const Config& c = files.config;
  const Weights& w = files.weights;
  if (const std::int64_t version = c.integer("tessera_version"); version != 1) {
    throw UnsupportedError(
        concat(c.where(), ": tessera_version ", version, "; this program reads version 1"));
  }
  model.consume = read_consume(c);
  model.decoder = text::load_language_model(c.at("text_config"), w.at("decoder"));
  const std::int64_t width = model.decoder->width();
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
  if (model.consume == Consume::memory && !model.decoder->has_cross_attention()) {
    throw FormatError(
        concat(c.where(), ": consume is \"memory\", but the decoder has no cross-attention"));
  }
  model.image_token = static_cast<std::int32_t>(c.integer("image_token_id", 0));
  model.audio_token = static_cast<std::int32_t>(c.integer("audio_token_id", 0));
  const Config tasks = c.child("tasks");
  for (const std::string& name : tasks.keys()) {
    const Config task = tasks.at(name);
    model.tasks[name] = {read_ids(task, "start"), read_ids(task, "end"), task.child("generation"),
                         task.string("adapter", "")};
    const std::string& adapter = model.tasks[name].adapter;
    if (adapter.empty() || model.adapted.count(adapter)) continue;
    if (w.at("adapters").at(adapter).names().empty())
      throw FormatError(
          concat(task.where(), ".adapter: the checkpoint has no tensors adapters.", adapter, ".*"));
    model.adapted[adapter] = text::load_language_model(
        c.at("text_config"), with_own_adapter(w.at("decoder"), w.at("adapters").at(adapter)));
  }
}

}  // namespace

ModelFamily tessera_family() { return {{"tessera"}, load}; }

}  // namespace tessera::fusion
