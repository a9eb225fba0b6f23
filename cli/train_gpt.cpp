#include "cli/train_gpt.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "cli/timings.h"
#include "core/error.h"
#include "core/loss.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/text_file.h"
#include "text/generate.h"
#include "text/score.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

/// A run under way: what the trainer's hooks work on.
class GptRun {
 public:
  explicit GptRun(const GptOptions& o)
      : o_(o),
        tokenizer_(text::Tokenizer::open(o.tokenizer)),
        text_(read_gpt_text(o, tokenizer_)),
        gpt_(make_gpt(o, tokenizer_)),
        trainer_(gpt_.parameters, gpt_.parameters, o.options()),
        progress_(o) {}

  int run();

 private:
  void set_hooks(Context& ctx);
  void describe(const fs::path& folder) const;
  double held_out_loss(Context& ctx) const;
  void on_step(const train::StepReport& r);
  std::string sample(Context& ctx) const;
  void print_plan() const;
  void print_result();

  const GptOptions& o_;
  text::Tokenizer tokenizer_;
  GptText text_;
  NewGpt gpt_;
  train::Trainer trainer_;
  TrainProgress progress_;
  Context* ctx_ = nullptr;
};

void GptRun::set_hooks(Context& ctx) {
  ctx_ = &ctx;
  trainer_.batch_loss = [this](Context& c, std::int64_t step, std::int64_t batch) {
    const text::TokenBatch rows = gpt_batch(o_, text_, step, batch);
    return train::BatchLoss{text::next_token_loss(c, *gpt_.model, rows),
                            static_cast<std::int64_t>(rows.targets.size())};
  };
  trainer_.describe = [this](const fs::path& folder) { describe(folder); };
  if (text_.held_out > 0) trainer_.evaluate = [this](Context& c) { return held_out_loss(c); };
  trainer_.on_step = [this](const train::StepReport& r) { on_step(r); };
  trainer_.stop = [] { return InterruptGuard::interrupted(); };
}

void GptRun::describe(const fs::path& folder) const {
  const auto write = [&](const char* name, const std::string& text) {
    write_file(folder / name, text);
  };
  const Config config = Config::parse(gpt_.config, "config.json");
  write("config.json", gpt_.config);
  write("generation_config.json", Json{{"bos_token_id", config.integer("bos_token_id")},
                                       {"eos_token_id", config.integer("eos_token_id")}}
                                          .dump(2) +
                                      "\n");
  const fs::path source = o_.tokenizer;
  const fs::path from = fs::is_directory(source) ? source : source.parent_path();
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "vocab.json", "merges.txt"}) {
    if (fs::exists(from / name)) write(name, read_text_file(from / name));
  }
}

double GptRun::held_out_loss(Context& ctx) const {
  return std::log(text::perplexity(text::log_probabilities(ctx, *gpt_.model, text_.evaluated)));
}

std::string GptRun::sample(Context& ctx) const {
  text::SamplingOptions options;
  options.max_new_tokens = std::min<std::int64_t>(64, o_.context / 2);
  options.do_sample = true;
  options.temperature = 0.8;
  options.top_k = 40;
  options.seed = o_.trainer.seed;
  const auto ids = tokenizer_.encode(o_.prompt);
  if (ids.empty()) throw ArgumentError("--prompt: an empty text can't be continued");
  const auto made =
      text::generate(ctx, *gpt_.model, &tokenizer_,
                     {gpt_.model->new_cache(), gpt_.model->embed(ctx, ids), ids}, options);
  return o_.prompt + made.front().text;
}

void GptRun::on_step(const train::StepReport& r) {
  progress_.on_step(r);
  if (r.evaluation) {
    progress_.clear();
    report(concat("step ", r.step, ": loss ", r.loss, ", held-out perplexity ",
                  std::exp(*r.evaluation)));
  }
  if (o_.sample_every > 0 && r.step % o_.sample_every == 0) {
    progress_.clear();
    report(concat("step ", r.step, ": ", sample(*ctx_)));
  }
}

void GptRun::print_plan() const {
  const std::int64_t parameters = train::count(gpt_.parameters);
  const std::int64_t a_step = o_.batch * o_.context * o_.trainer.accumulation;
  // Weights, gradients, two moments; what a batch leaves for the way back (34 numbers of the width
  // a layer and token, or one and those of a single layer), some of the logits.
  const std::int64_t kept = o_.trainer.checkpoint_activations ? 2 * o_.layers + 34 : 34 * o_.layers;
  const std::int64_t tokens = o_.batch * o_.context;
  const double bytes =
      16.0 * static_cast<double>(parameters) +
      4.0 * static_cast<double>(tokens) * static_cast<double>(kept * o_.width / 2) +
      4.0 * static_cast<double>(std::min(tokens * tokenizer_.vocab_size(), kLogitsAtATime));
  if (o_.json) {
    print_json({{"parameters", parameters},
                {"vocabulary", tokenizer_.vocab_size()},
                {"training_tokens", text_.training},
                {"held_out_tokens", text_.held_out},
                {"tokens_per_step", a_step},
                {"steps", o_.trainer.schedule.steps},
                {"memory_bytes", static_cast<std::int64_t>(bytes)}});
    return;
  }
  char text[400];
  std::snprintf(
      text, sizeof text,
      "parameters       %lld\nvocabulary       %lld tokens\ntraining text    %lld tokens\n"
      "held-out text    %lld tokens\na step           %lld tokens\n"
      "the run          %lld steps, %.1f times through the text\nmemory, about    %.0f MB",
      static_cast<long long>(parameters), static_cast<long long>(tokenizer_.vocab_size()),
      static_cast<long long>(text_.training), static_cast<long long>(text_.held_out),
      static_cast<long long>(a_step), static_cast<long long>(o_.trainer.schedule.steps),
      static_cast<double>(a_step * o_.trainer.schedule.steps) / static_cast<double>(text_.training),
      bytes / 1e6);
  print_line(text);
}

void GptRun::print_result() {
  progress_.clear();
  if (o_.json) {
    Json line = {{"run", o_.run},
                 {"step", trainer_.step()},
                 {"loss", progress_.loss()},
                 {"perplexity", nullptr},
                 {"tokens_per_second", progress_.tokens_per_second()}};
    if (progress_.evaluation() >= 0) line["perplexity"] = std::exp(progress_.evaluation());
    print_json(line);
    return;
  }
  char text[160];
  std::snprintf(text, sizeof text, "step %lld: loss %.4f, %.0f tokens/s",
                static_cast<long long>(trainer_.step()), progress_.loss(),
                progress_.tokens_per_second());
  print_line(concat(o_.run, ": ", text));
}

int GptRun::run() {
  if (o_.dry_run) {
    print_plan();
    return kOk;
  }
  Context ctx({.threads = o_.threads});
  ctx.rounded_products = o_.bf16;
  Profile profile;
  if (o_.timings) ctx.profile = &profile;
  set_hooks(ctx);
  o_.check_folder();
  if (o_.resume && trainer_.resume()) report(concat("going on from step ", trainer_.step()));
  const InterruptGuard guard;
  const bool finished = [&] {
    const PhaseScope phase(ctx, "training");
    return trainer_.run(ctx);
  }();
  print_result();
  if (o_.timings) std::fputs(profile_table(profile).c_str(), stderr);
  if (!finished)
    report(concat("stopped; tessera train gpt --resume goes on from step ", trainer_.step()));
  return finished ? kOk : kInterrupted;
}

void add_model_options(Command& command, GptOptions& o) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default().group("The model");
  };
  add("--layers", o.layers, "Blocks").range(1, 256);
  add("--width", o.width, "Numbers a token").range(1, 1 << 16);
  add("--heads", o.heads, "Heads of attention; they divide the width").range(1, 1024);
  add("--context", o.context, "Tokens of a sequence").range(1, 1 << 16);
  add("--dropout", o.dropout,
      "Share of numbers dropped behind the embedding and each layer, and of attention's weights")
      .range(0.0, 0.99);
}

void add_run_options(Command& command, GptOptions& o) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default().group("The run");
  };
  add("--steps", o.trainer.schedule.steps, "Steps of the run").positive();
  add("--validation", o.validation, "Text files held out (else the end of the others)")
      .type_name("FILE")
      .one_each();
  add("--held-out", o.held_out, "Share of the text held out").range(0.0, 0.9);
  add("--evaluate-every", o.trainer.evaluate_every, "Steps between perplexities on it (0: never)")
      .non_negative();
  add("--sample-every", o.sample_every, "Steps between texts written by the model (0: never)")
      .non_negative();
  command.add_option("--prompt", o.prompt, "How they begin (default: a new line)").group("The run");
}

}  // namespace

Run add_train_gpt(Command& train) {
  auto o = std::make_shared<GptOptions>();
  o->trainer.schedule = {.peak = 1e-3, .floor = 0.1, .warmup = 100, .steps = 1000};
  o->trainer.optimizer = {.beta2 = 0.95, .weight_decay = 0.1};
  o->trainer.checkpoint_every = 250;
  o->trainer.evaluate_every = 250;
  Command command = train.add_command("gpt", "Train a GPT-2 from text files");
  command.add_option("FILE", o->files, "Text files, one document each").required();
  command.add_option("--tokenizer", o->tokenizer, "Folder with tokenizer.json")
      .type_name("DIR")
      .required();
  o->add_to(command, "Sequences of a batch");
  add_model_options(command, *o);
  add_run_options(command, *o);
  command.footer(
      "Example:\n  tessera train gpt --tokenizer tokenizer -o runs/first text.txt\n"
      "  tessera generate --model runs/first \"Once\"");
  return [o] { return GptRun(*o).run(); };
}

}  // namespace tessera::cli
