#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fusion/model.h"
#include "fusion/session.h"

namespace tessera::fusion {

struct CalibrationOptions {
  /// What the model is run on. A text, for decoders that write on their own: pieces of it. JSON
  /// Lines or a table, as for evaluation: examples with their answers. A folder of images or
  /// sounds, or both: the model answers them itself. Empty: texts that the model writes itself
  /// (own_texts).
  std::filesystem::path data = {};
  std::int64_t examples = 128;  ///< at most so many, taken evenly from all there are
  std::int64_t tokens = 512;    ///< of a piece of text; at most as many as the model takes
  std::string language = {};    ///< multilingual Whisper: the language of transcripts
  std::vector<std::vector<std::int32_t>> texts = {};  ///< token ids, in place of data
};

/// At most `examples` texts of at most `tokens` ids that the session's model writes by itself,
/// drawn from what it gives at temperature 1, so that they are like what it has learnt (Williams et
/// al. 2024, arXiv 2410.17170). The same for any number of threads; fewer where on_progress said
/// false. Throws UnsupportedError for models that need an image or a sound to write about.
std::vector<std::vector<std::int32_t>> own_texts(
    Session& session, const CalibrationOptions& options,
    const std::function<bool(std::int64_t done, std::int64_t total)>& on_progress);

/// Data that shows what a model's layers are given in use.
class Calibration {
 public:
  /// Throws IoError, FormatError, ArgumentError and UnsupportedError for data that is empty or
  /// malformed, or that this model can't take. Images and sounds are not read yet.
  Calibration(std::shared_ptr<const Model> model, const CalibrationOptions& options);

  std::int64_t size() const { return size_; }  ///< at least 1
  /// Runs the session's model, which is the one given above, on an example. Throws Error for media
  /// that can't be read.
  void run(Session& session, std::int64_t example) const { run_(session, example); }

 private:
  void run_on(const std::shared_ptr<const Model>& model,
              const std::vector<std::vector<std::int32_t>>& texts);

  std::int64_t size_ = 0;
  std::function<void(Session&, std::int64_t)> run_;
};

}  // namespace tessera::fusion
