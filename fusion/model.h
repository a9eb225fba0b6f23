#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "audio/log_mel.h"
#include "audio/sound.h"
#include "audio/tower.h"
#include "core/config.h"
#include "core/weights.h"
#include "fusion/projector.h"
#include "fusion/speech.h"
#include "text/language_model.h"
#include "text/sampler.h"
#include "text/text_tower.h"
#include "text/tokenizer.h"
#include "vision/image_processor.h"
#include "vision/tower.h"

namespace tessera::fusion {

/// How the decoder takes in images and sounds.
enum class Consume {
  splice,  ///< their rows stand in its own sequence, in the place of placeholder tokens
  memory,  ///< their rows, in the prompt's order, are what it cross-attends to
};

/// The token sequence around a prompt, and what differs from generation_config.json.
struct Task {
  std::vector<std::int32_t> start, end;
  Config generation;
  std::string adapter =
      {};  ///< of the checkpoint's own ones, which the decoder takes on; empty: none
  /// [1, D], added to every row of an image or a sound: how much, and as what, the answer is to
  /// look at it. Empty: none.
  Tensor image_embedding = {}, audio_embedding = {};
  /// What of a prompt's images and sounds is encoded and reaches the decoder; the rest is left out.
  bool attends_to_images = true, attends_to_sounds = true;
  /// Sound after which <|nospeech|> is likelier than this has no text. Empty: all has.
  std::optional<double> no_speech_threshold = {};
};

struct OpenOptions {
  /// Of matrix products; int4: towers stay at int8; automatic: images stay as stored.
  Precision precision = Precision::as_stored;
  CacheNumbers cache = CacheNumbers::automatic;  ///< of the decoder's keys and values
  /// In memory, instead of the numbers in the files: of a model that is trained. Their precision
  /// counts.
  std::optional<Weights> weights = {};
  std::optional<Config> config = {};                 ///< instead of config.json
  std::vector<std::filesystem::path> adapters = {};  ///< LoRA, merged one on top of the other
  /// LoRA of the decoder, one of which a call may choose by its name (GenerateOptions::adapter).
  std::map<std::string, std::filesystem::path> switchable = {};
  bool needs_tokenizer = true;  ///< false: a decoder may come without (to look at, not to generate)
};

/// What a dual encoder has besides its image tower (see fusion/dual_encoder.h).
struct DualParts {
  text::TextTower text;
  Linear image_projection, text_projection;  ///< [D] -> [P]; none: vectors stay as they are
  Tensor logit_scale;                        ///< [1], the logarithm of the scale
  Tensor logit_bias;                         ///< [1]; none: texts of an image compete
  std::int64_t width = 0;                    ///< P
};

/// A whole checkpoint, opened: towers, projectors, decoder, and what is needed to go from files to
/// tokens and back. Any part may be absent. Const and shared between sessions.
struct Model {
  std::filesystem::path path;
  std::string family;  ///< model_type
  Config config, generation_config;

  std::optional<text::Tokenizer> tokenizer;
  std::optional<vision::ImageProcessor> image_processor;
  std::optional<audio::LogMel> log_mel;
  std::unique_ptr<vision::VisionTower> vision;
  std::unique_ptr<audio::AudioTower> audio;
  Projector vision_projector, audio_projector;
  text::Decoder decoder;
  /// With adapters: the checkpoint's own, and those of OpenOptions::switchable, by name.
  std::map<std::string, text::Decoder> adapted;

  /// Of a checkpoint that brings images and texts into one space.
  std::optional<DualParts> dual;

  /// Of a text classifier (HF's GPT2ForSequenceClassification and the like): the last token's
  /// hidden state -> scores of `score_labels`.
  std::optional<Linear> score;
  std::vector<std::string> score_labels;

  Consume consume = Consume::splice;
  std::int32_t image_token = 0, audio_token = 0;  ///< placeholders, for splice
  std::map<std::string, Task> tasks;              ///< "caption", "transcribe", "prompt"
  std::optional<SpeechTokens> speech;             ///< Whisper checkpoints only

  std::optional<Weights> weights;
  std::vector<std::string> unread;  ///< names of tensors that nothing used

  /// Opens a checkpoint directory as published (config.json, *.safetensors, tokenizer.json, ...).
  /// Throws IoError, FormatError, ShapeError, UnsupportedError, each naming the file.
  static std::shared_ptr<const Model> open(const std::filesystem::path& directory,
                                           const OpenOptions& options = {});

  /// Pixels or frames -> projected rows [R, D]. Throws UnsupportedError where the checkpoint has no
  /// such tower. A sound longer than one window gives the rows of all its windows one after the
  /// other.
  Tensor encode(Context& ctx, const vision::Image& image) const;
  Tensor preprocess(Context& ctx, const vision::Image& image) const;  ///< -> [3, H, W]
  Tensor encode_pixels(Context& ctx, const Tensor& pixels /*[3, H, W]*/) const;
  Tensor encode(Context& ctx, const audio::Sound& sound) const;
  Tensor encode_frames(Context& ctx, const Tensor& log_mel /*[frames, mels]*/) const;

  /// The classes it tells apart, of images or of texts; none without a classifier.
  std::vector<std::string> labels() const;
  /// Texts as tokens, none empty -> scores of their classes [N, classes]. Throws UnsupportedError
  /// without a text classifier, ArgumentError for a text longer than the context.
  Tensor score_texts(Context& ctx, const std::vector<std::vector<std::int32_t>>& texts) const;

  /// The task of that name, else "prompt", else [bos_token_id].
  Task task(const std::string& name) const;
  /// The decoder as that task has it, with its adapter if it has one, or with the adapter of that
  /// name. Only where there is a decoder. Throws ArgumentError for a name that nobody gave.
  const text::LanguageModel& decoder_for(const std::string& task,
                                         const std::string& adapter = "") const;
  /// generation_config.json with the task's overrides.
  text::SamplingOptions sampling(const std::string& task) const;
};

/// The files of a checkpoint directory that describe it; absent ones are empty.
struct CheckpointFiles {
  std::filesystem::path path;
  Config config, generation_config, preprocessor_config;
  Weights weights;
  std::map<std::string, std::filesystem::path> switchable;  ///< adapters

  /// The decoder whose tensors are in `scope` ("": all), plain and with each adapter. Throws
  /// UnsupportedError for an adapter that changes anything else.
  void open_decoder(const Config& decoder, const std::string& scope, Model& model) const;
};

/// How a whole checkpoint is found: by the `model_type` of its config.json. load() fills in the
/// parts.
struct ModelFamily {
  std::vector<std::string> model_types;
  void (*load)(const CheckpointFiles& files, Model& model);
};
std::vector<ModelFamily> families();

/// Where the default checkpoint lies: $TESSERA_MODEL, else models/default of the sources or of the
/// installation. Throws IoError where there is none.
std::filesystem::path default_model();

}  // namespace tessera::fusion
