#pragma once
#include <string>
#include <vector>

#include "core/config.h"
#include "golden/fixture.h"
#include "temporary_folder.h"
#include "text/loss.h"
#include "train/trainer.h"

// The run that tests/golden/make_training.py made PyTorch do.
namespace tessera::testing {

class Curve {
 public:
  Curve()
      : folder(std::filesystem::path(TESSERA_SOURCE_DIR) / "tests/data/training/curve"),
        golden(Config::read(folder / "golden.json")),
        ids_(golden::to_ids(golden.integers("ids"))),
        parameters(train::copy_of(Weights::open(folder))),
        model(text::load_language_model(Config::read(folder / "config.json"),
                                        Weights::of(parameters))) {}

  train::TrainerOptions options(const std::filesystem::path& run, std::int64_t accumulation) const {
    const Config o = golden.at("options");
    train::TrainerOptions t;
    t.run = run;
    t.accumulation = accumulation;
    t.schedule = {.kind = train::Schedule::Kind::cosine,
                  .peak = o.number("peak"),
                  .floor = o.number("floor"),
                  .warmup = o.integer("warmup"),
                  .steps = o.integer("steps")};
    t.optimizer = {.beta1 = o.number("beta1"),
                   .beta2 = o.number("beta2"),
                   .epsilon = o.number("epsilon"),
                   .weight_decay = o.number("weight_decay")};
    t.clip = o.number("clip");
    return t;
  }

  /// Rows of one of `batches` equal parts of a step.
  text::TokenBatch batch(std::int64_t step, std::int64_t part, std::int64_t batches) const {
    const std::int64_t context = golden.at("options").integer("context"),
                       rows = golden.at("options").integer("batch") / batches;
    text::TokenBatch out;
    for (std::int64_t b = part * rows; b < (part + 1) * rows; ++b) {
      const auto start =
          ids_.begin() + (31 * step + 97 * b) % (static_cast<std::int64_t>(ids_.size()) - context);
      out.ids.insert(out.ids.end(), start, start + context);
      out.targets.insert(out.targets.end(), start + 1, start + context + 1);
      out.lengths.push_back(context);
    }
    return out;
  }

  train::Trainer trainer(const std::filesystem::path& run, std::int64_t accumulation = 1) const {
    return trainer(options(run, accumulation));
  }
  train::Trainer trainer(const train::TrainerOptions& o) const {
    train::Trainer t(parameters, parameters, o);
    t.batch_loss = [this, batches = o.accumulation](Context& ctx, std::int64_t step,
                                                    std::int64_t part) {
      const text::TokenBatch b = batch(step, part, batches);
      return train::BatchLoss{text::next_token_loss(ctx, *model, b),
                              static_cast<std::int64_t>(b.targets.size())};
    };
    return t;
  }

  std::filesystem::path folder;
  Config golden;

 private:
  std::vector<std::int32_t> ids_;

 public:
  train::Parameters parameters;
  std::unique_ptr<text::LanguageModel> model;
};

}  // namespace tessera::testing
