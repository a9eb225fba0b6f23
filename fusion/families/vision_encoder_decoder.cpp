// HF's VisionEncoderDecoderModel: an image tower whose rows are what a text decoder cross-attends
// to (nlpconnect/vit-gpt2-image-captioning is one).
#include "fusion/model.h"

namespace tessera::fusion {

ModelFamily vision_encoder_decoder_family() {
  return {{"vision-encoder-decoder"}, [](const CheckpointFiles& files, Model& model) {
            const Config encoder = files.config.at("encoder"), decoder = files.config.at("decoder");
            model.vision = vision::load_tower(encoder, files.weights.at("encoder"));
            files.open_decoder(decoder, "decoder", model);
            model.image_processor.emplace(files.preprocessor_config);
            model.consume = Consume::memory;
            const std::int64_t from = model.vision->width(), to = model.decoder->width();
            if (files.weights.has("enc_to_dec_proj.weight")) {
              model.vision_projector =
                  Projector(Linear(files.weights.at("enc_to_dec_proj"), from, to));
            }
            const auto key = "decoder_start_token_id";
            const std::int64_t start = files.generation_config.integer(
                key, files.config.integer(
                         key, decoder.integer(key, decoder.integer("bos_token_id", 50256))));
            model.tasks["caption"].start = {static_cast<std::int32_t>(start)};
            model.tasks["prompt"] = model.tasks["caption"];
          }};
}

}  // namespace tessera::fusion
