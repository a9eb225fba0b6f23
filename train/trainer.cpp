#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/tape.h"
#include "train/autograd.h"

namespace tessera::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The log up to a step: what a run that was cut off wrote after its last checkpoint is done again.
std::string log_until(const fs::path& file, std::int64_t step) {
  std::ifstream in(file);
  std::string kept, line;
  while (std::getline(in, line)) {
    const Json entry = Json::parse(line, nullptr, false);
    const auto number = entry.is_object() ? entry.find("step") : entry.end();
    if (entry.is_object() && number != entry.end() && number->is_number_integer() &&
        number->get<std::int64_t>() <= step)
      kept += line + "\n";
  }
  return kept;
}

}  // namespace

Trainer::Trainer(Parameters all, const Parameters& trained, TrainerOptions options)
    : all_(std::move(all)), optimizer_(trained, options.optimizer), options_(std::move(options)) {
  if (trained.empty()) throw ArgumentError("nothing to train: every parameter is frozen");
  for (const NamedTensor& p : trained) tape_.watch(p.tensor);
  state_.seed = options_.seed;
  tape_.keeps_inputs_only = options_.checkpoint_activations;
}

bool Trainer::resume() {
  const auto newest = newest_checkpoint(options_.run);
  if (!newest) return false;
  state_ = load_checkpoint(*newest, options_.weights_file, all_, optimizer_);
  saved_ = state_.step;
  return true;
}

bool Trainer::run(Context& ctx) {
  open_log();
  const std::int64_t steps = options_.schedule.steps;
  bool stopped = false;
  while (state_.step < steps && !stopped) {
    StepReport report = one_step(ctx);
    const bool last = state_.step == steps;
    const auto due = [&](std::int64_t every) { return every > 0 && state_.step % every == 0; };
    if (evaluate && (due(options_.evaluate_every) || (last && options_.evaluate_every > 0))) {
      optimizer_.swap_averages();
      report.evaluation = evaluate(ctx);
      optimizer_.swap_averages();
    }
    log(report);
    if (on_step) on_step(report);
    stopped = stop && stop();
    if (due(options_.checkpoint_every) || last || stopped) checkpoint();
  }
  if (stopped && state_.step < steps) return false;
  optimizer_.swap_averages();
  save_model(options_.run / options_.weights_file, all_, describe);
  return true;
}

StepReport Trainer::one_step(Context& ctx) {
  const auto start = std::chrono::steady_clock::now();
  gradients_.reset();
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t batch = 0; batch < options_.accumulation; ++batch) {
    const TapeScope recording(ctx, &tape_);
    tape_.set_seed(state_.seed +
                   static_cast<std::uint64_t>(state_.step * options_.accumulation + batch));
    const BatchLoss loss = batch_loss(ctx, state_.step, batch);
    sum += static_cast<double>(loss.sum.data()[0]);
    count += loss.count;
    backward(ctx, tape_, loss.sum, 1.0f, gradients_);
  }
  if (count == 0)
    throw ArgumentError(concat("step ", state_.step + 1, ": no token of its batches counts"));
  const double mean = 1.0 / static_cast<double>(count);
  StepReport report;
  report.loss = sum * mean;
  report.gradient_norm = gradient_norm(ctx, gradients_, optimizer_.parameters(), mean);
  if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) not_finite(report.loss);
  report.rate = options_.schedule.rate(state_.step);
  const bool clipped = options_.clip > 0 && report.gradient_norm > options_.clip;
  optimizer_.step(ctx, gradients_, report.rate,
                  clipped ? mean * options_.clip / report.gradient_norm : mean);
  report.step = ++state_.step;
  report.steps = options_.schedule.steps;
  report.tokens = count;
  report.seconds = seconds_since(start);
  return report;
}

void Trainer::not_finite(double loss) const {
  std::string where;
  for (const NamedTensor& p : optimizer_.parameters()) {
    const Tensor gradient = gradients_.find(p.tensor);
    if (!gradient) continue;
    const auto values = gradient.to_vector();
    if (std::ranges::all_of(values, [](float g) { return std::isfinite(g); })) continue;
    where = concat("; the first parameter without a finite gradient is ", p.name);
    break;
  }
  throw Error(concat("step ", state_.step + 1, ": the loss is ", loss, where,
                     "; training has stopped, ",
                     saved_ ? concat("the checkpoint of step ", *saved_, " is kept")
                            : std::string("nothing was saved yet"),
                     "; try a lower learning rate"));
}

void Trainer::open_log() {
  make_folders(options_.run);
  const fs::path file = options_.run / "log.jsonl";
  write_file(file, log_until(file, state_.step));
  if (state_.step < options_.schedule.steps) events_.emplace(options_.run, state_.step + 1);
}

void Trainer::log(const StepReport& r) {
  Json entry = {{"step", r.step},          {"loss", r.loss},
                {"learning_rate", r.rate}, {"grad_norm", r.gradient_norm},
                {"tokens", r.tokens},      {"seconds", r.seconds}};
  if (r.evaluation) entry["evaluation"] = *r.evaluation;
  const fs::path file = options_.run / "log.jsonl";
  std::ofstream out(file, std::ios::app);
  out << entry.dump() << "\n" << std::flush;
  if (!out) throw IoError(concat(file.string(), ": can't be written"));
  EventFile::Scalars scalars = {
      {"train/loss", r.loss},
      {"train/learning_rate", r.rate},
      {"train/grad_norm", r.gradient_norm},
      {"train/tokens_per_second", static_cast<double>(r.tokens) / std::max(r.seconds, 1e-9)}};
  if (r.evaluation) scalars.emplace_back("evaluation", *r.evaluation);
  events_->append(r.step, scalars);
}

void Trainer::checkpoint() {
  save_checkpoint(options_.run, options_.weights_file, all_, optimizer_, state_, describe,
                  options_.checkpoints_kept);
  saved_ = state_.step;
}

}  // namespace tessera::train
