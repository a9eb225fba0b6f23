#include "cli/train_options.h"

#include <cstdio>
#include <cstdlib>

#include "core/error.h"

namespace tessera::cli {
namespace {

void add_learning(Command& command, TrainFlags& o, const char* what_a_batch_has) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default().group("Learning");
  };
  train::TrainerOptions& t = o.trainer;
  add("--batch", o.batch, what_a_batch_has).range(1, 1 << 16);
  add("--accumulate", t.accumulation, "Batches of a step").range(1, 1 << 16);
  add("--rate", t.schedule.peak, "Highest learning rate").positive();
  command
      .add_option("--rate-of", o.rate_factors,
                  "PATTERN=FACTOR: the rate is multiplied for parameters of such names")
      .type_name("PATTERN=FACTOR")
      .one_each()
      .group("Learning");
  add("--warmup", t.schedule.warmup, "Steps until it is reached").non_negative();
  add("--schedule", o.schedule, "How the rate goes on").one_of({"cosine", "linear", "constant"});
  add("--floor", t.schedule.floor, "Share of the rate at the end").range(0.0, 1.0);
  add("--optimizer", o.optimizer, "AdamW, or gradient descent with momentum")
      .one_of({"adamw", "sgd"});
  add("--weight-decay", t.optimizer.weight_decay, "Of matrices").non_negative();
  add("--momentum", t.optimizer.momentum, "SGD: share of the last change kept").range(0.0, 0.9999);
  add("--average", t.optimizer.average,
      "Keep a mean of the parameters: this share of the old each step (EMA; 0: none)")
      .range(0.0, 0.99999);
  add("--beta1", t.optimizer.beta1, "AdamW: of the mean").range(0.0, 0.9999);
  add("--beta2", t.optimizer.beta2, "AdamW: of the squares").range(0.0, 0.99999);
  command
      .add_flag("--bf16", o.bf16,
                "Multiply bf16 numbers, sums in f32, where the processor does so (faster)")
      .group("Learning");
  command
      .add_flag("--checkpoint-activations", t.checkpoint_activations,
                "Keep the input of each block alone and run it again on the way back: the same "
                "numbers in less memory, slower")
      .group("Learning");
  add("--clip", t.clip, "Largest norm of the gradient (0: any)").non_negative();
  add("-s,--seed", t.seed, "Same seed, same run");
}

void add_run(Command& command, TrainFlags& o) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default().group("The run");
  };
  train::TrainerOptions& t = o.trainer;
  add("--checkpoint-every", t.checkpoint_every, "Steps (0: only at the end)").non_negative();
  add("--keep", t.checkpoints_kept, "Checkpoints kept").positive();
  command.add_flag("--resume", o.resume, "Go on from the newest checkpoint").group("The run");
  command.add_flag("--dry-run", o.dry_run, "Check everything and say what would be done")
      .group("The run");
}

}  // namespace

void TrainFlags::add_to(Command& command, const char* what_a_batch_has) {
  command.add_option("-o,--out", run, "Folder of the run: log, checkpoints and the model")
      .type_name("DIR")
      .required();
  command.add_option("-t,--threads", threads, "Threads (0: one for each physical core)")
      .range(0, 1024)
      .show_default();
  command.add_flag("--json", json, "Print one JSON object a line");
  command.add_flag("--timings", timings, "Say on standard error where the time went");
  add_learning(command, *this, what_a_batch_has);
  add_run(command, *this);
}

train::TrainerOptions TrainFlags::options() const {
  using Kind = train::Schedule::Kind;
  train::TrainerOptions out = trainer;
  out.run = run;
  out.schedule.kind = schedule == "cosine"   ? Kind::cosine
                      : schedule == "linear" ? Kind::linear
                                             : Kind::constant;
  out.optimizer.kind = optimizer == "sgd" ? train::OptimizerOptions::Kind::sgd
                                          : train::OptimizerOptions::Kind::adamw;
  for (const std::string& given : rate_factors) {
    const auto at = given.rfind('=');
    char* end = nullptr;
    const double factor = at == given.npos ? -1 : std::strtod(given.c_str() + at + 1, &end);
    if (!end || *end || end == given.c_str() + at + 1 || !(factor >= 0 && factor < 1e6))
      throw ArgumentError(
          concat("--rate-of ", given, ": expected PATTERN=FACTOR, as '*tower*=0.1'"));
    out.optimizer.rate_factors.emplace_back(given.substr(0, at), factor);
  }
  return out;
}

void TrainFlags::check_folder() const {
  if (resume || !train::newest_checkpoint(run)) return;
  throw ArgumentError(concat(run,
                             ": has checkpoints of a run already; --resume goes on with it, or "
                             "choose another folder"));
}

void TrainProgress::on_step(const train::StepReport& r) {
  seconds_ += r.seconds;
  tokens_ += r.tokens;
  loss_ = r.loss;
  const double speed = static_cast<double>(r.tokens) / r.seconds;
  const double left = seconds_ / static_cast<double>(tokens_) * static_cast<double>(r.tokens) *
                      static_cast<double>(r.steps - r.step);
  char more[96];
  std::snprintf(more, sizeof more, "  loss %.4f  %.0f tokens/s  %s left", r.loss, speed,
                clock_time(left).substr(0, clock_time(left).find('.')).c_str());
  progress_.show(static_cast<double>(r.step), static_cast<double>(r.steps), more);
  if (r.evaluation) evaluation_ = *r.evaluation;
}

}  // namespace tessera::cli
