// Whisper checkpoints (tiny to large-v3-turbo, multilingual and English): sound tower, decoder,
// special tokens.
#include "fusion/model.h"

namespace tessera::fusion {

ModelFamily whisper_family() {
  return {{"whisper"}, [](const CheckpointFiles& files, Model& model) {
            const bool headed = files.weights.has("model.encoder.conv1.weight");
            const Weights w = headed ? files.weights.at("model") : files.weights;
            model.audio = audio::load_tower(files.config, w.at("encoder"));
            files.open_decoder(files.config, headed ? "model.decoder" : "decoder", model);
            files.weights.ignore("proj_out.weight");  // the token embedding again
            model.log_mel.emplace(files.preprocessor_config);
            model.consume = Consume::memory;
            model.speech.emplace(files.generation_config, files.config);
            const std::optional<std::int32_t> unknown;
            model.tasks["transcribe"].start =
                model.speech->start_sequence(unknown, false, "", false);
            model.tasks["prompt"] = model.tasks["transcribe"];
          }};
}

}  // namespace tessera::fusion
