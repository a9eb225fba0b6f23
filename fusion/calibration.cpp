#include "fusion/calibration.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "core/error.h"
#include "core/text_file.h"
#include "fusion/dual_encoder.h"
#include "fusion/example_loss.h"
#include "fusion/examples.h"
#include "fusion/transcribe.h"
#include "text/score.h"
#include "vision/image.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

/// At most `most` of a list, evenly from its begin to its end.
template <class T>
std::vector<T> some_of(std::vector<T> all, std::int64_t most) {
  const auto count = static_cast<std::int64_t>(all.size());
  if (count <= most) return all;
  std::vector<T> some;
  for (std::int64_t i = 0; i < most; ++i)
    some.push_back(std::move(all[static_cast<std::size_t>(i * count / most)]));
  return some;
}

// --- text ---

bool writes_by_itself(const Model& model) {
  return model.decoder && model.tokenizer && !model.decoder->has_cross_attention();
}

std::vector<std::vector<std::int32_t>> pieces_of_text(const Model& model,
                                                      const CalibrationOptions& o) {
  const std::string name = o.data.string();
  if (!writes_by_itself(model)) {
    throw UnsupportedError(concat(
        name, ": is taken for a text, but ", model.path.string(),
        model.decoder ? " writes about images or sounds" : " has no text decoder",
        "; give a folder of those, or JSON Lines of examples (a file named .jsonl, .csv or .tsv)"));
  }
  const std::string text = read_text_file(o.data);
  if (text.find('\0') != text.npos)
    throw FormatError(concat(name, ": is not a text, byte ", text.find('\0'), " is zero"));
  const auto ids = model.tokenizer->encode(text, {.add_special_tokens = true});
  const auto all = static_cast<std::int64_t>(ids.size());
  const std::int64_t length =
      std::min({o.tokens, model.decoder->max_positions(), std::max<std::int64_t>(all, 2)});
  std::vector<std::vector<std::int32_t>> pieces;
  for (std::int64_t at = 0; at + 2 <= all; at += length)
    pieces.emplace_back(ids.begin() + at, ids.begin() + std::min(all, at + length));
  if (pieces.empty()) throw FormatError(concat(name, ": has no text to run the model on"));
  return some_of(std::move(pieces), o.examples);
}

// --- a folder ---

std::vector<fs::path> media_in(const Model& model, const fs::path& folder) {
  const auto is_image = vision::is_image_name;
  const auto is_sound = audio::is_sound_name;
  std::error_code error;
  const std::vector<fs::path> all = files_below(
      folder, [&](const fs::path& file) { return is_image(file) || is_sound(file); }, error);
  if (error) throw IoError(concat(folder.string(), ": ", error.message()));
  if (all.empty())
    throw ArgumentError(concat(folder.string(), ": this folder has no images and no sounds"));
  const bool sees = model.vision && model.image_processor, hears = model.audio && model.log_mel;
  std::vector<fs::path> taken;
  std::ranges::copy_if(all, std::back_inserter(taken),
                       [&](const fs::path& file) { return is_image(file) ? sees : hears; });
  if (taken.empty()) {
    throw UnsupportedError(concat(model.path.string(), ": has no tower for the ",
                                  std::ranges::any_of(all, is_image) ? "images" : "sounds", " in ",
                                  folder.string()));
  }
  return taken;
}

/// What the model is for, with an image.
void see(Session& session, const std::shared_ptr<const Model>& model, const fs::path& file) {
  const vision::Image image = vision::load_image(file);
  Context& ctx = session.context();
  if (model->dual) {
    DualEncoder(model).encode_images(ctx, std::span(&image, 1));
  } else if (model->decoder) {
    session.generate({image}, {"caption", session.defaults("caption")});
  } else if (!model->labels().empty()) {
    session.classify(image, 1);
  } else {
    model->encode(ctx, image);
  }
}

void hear(Session& session, const Model& model, const fs::path& file) {
  if (model.decoder) {
    const auto sound = audio::open_sound(file);
    transcribe(session, *sound);
  } else {
    model.encode(session.context(), audio::load_sound(file));
  }
}

void demand_sizes(const CalibrationOptions& o) {
  if (o.examples < 1 || o.tokens < 2)
    throw ArgumentError(concat("calibration with ", o.examples, " examples of ", o.tokens,
                               " tokens; expected at least 1 and 2"));
}

}  // namespace

std::vector<std::vector<std::int32_t>> own_texts(
    Session& session, const CalibrationOptions& o,
    const std::function<bool(std::int64_t, std::int64_t)>& on_progress) {
  constexpr std::int64_t kTogether = 16;  // what reads the weights once
  const Model& model = session.model();
  demand_sizes(o);
  if (!writes_by_itself(model)) {
    throw UnsupportedError(
        concat(model.path.string(), ": can't write texts by itself; give data to calibrate on"));
  }
  GenerateOptions options;
  const std::int64_t most = std::min(o.tokens, model.decoder->max_positions());
  options.sampling = {.do_sample = true,
                      .top_k = 0,
                      .max_new_tokens = most - 1,
                      .stop_tokens = session.defaults(options.task).stop_tokens};
  std::vector<std::vector<std::int32_t>> texts(static_cast<std::size_t>(o.examples));
  std::int64_t begun = 0, done = 0;
  bool goes_on = on_progress(0, o.examples);
  session.run(
      model.decoder_for(options.task), kTogether, [&]() -> std::optional<text::GenerateJob> {
        if (!goes_on || begun == o.examples) return std::nullopt;
        auto& text = texts[static_cast<std::size_t>(begun)];
        options.sampling->seed = static_cast<std::uint64_t>(begun++);
        text::GenerateJob job = session.job({Text{}}, options, {}, [&](const Result& result) {
          text.insert(text.end(), result.ids.begin(), result.ids.end());
          goes_on = on_progress(++done, o.examples) && goes_on;
          if (!goes_on) session.cancel();
        });
        text = job.input.prompt_ids;
        return job;
      });
  std::erase_if(texts, [](const auto& text) { return text.size() < 2; });
  return texts;
}

Calibration::Calibration(std::shared_ptr<const Model> model, const CalibrationOptions& o) {
  demand_sizes(o);
  if (o.data.empty()) {
    if (o.texts.empty()) throw ArgumentError("calibration without data");
    run_on(model, o.texts);
    return;
  }
  std::error_code ignored;
  if (!fs::exists(o.data, ignored))
    throw IoError(concat(o.data.string(), ": there is no such file"));
  if (fs::is_directory(o.data, ignored)) {
    const auto files = some_of(media_in(*model, o.data), o.examples);
    size_ = std::ssize(files);
    run_ = [model, files](Session& session, std::int64_t i) {
      const fs::path& file = files[static_cast<std::size_t>(i)];
      if (model->vision && vision::is_image_name(file)) return see(session, model, file);
      hear(session, *model, file);
    };
  } else if (has_ending(o.data, {".jsonl", ".json", ".ndjson", ".csv", ".tsv"})) {
    Examples examples = read_examples(o.data);
    examples.list = some_of(std::move(examples.list), o.examples);
    size_ = std::ssize(examples.list);
    const auto loss = std::make_shared<ExampleLoss>(std::move(model), std::move(examples),
                                                    ExampleLossOptions{.language = o.language});
    run_ = [loss](Session& session, std::int64_t i) {
      (*loss)(session.context(), std::span(&i, 1), 0);
    };
  } else {
    run_on(model, pieces_of_text(*model, o));
  }
}

void Calibration::run_on(const std::shared_ptr<const Model>& model,
                         const std::vector<std::vector<std::int32_t>>& texts) {
  size_ = std::ssize(texts);
  run_ = [model, texts](Session& session, std::int64_t i) {
    text::log_probabilities(session.context(), *model->decoder, texts[static_cast<std::size_t>(i)]);
  };
}

}  // namespace tessera::fusion
