// finetune: a checkpoint learns examples, all of it or parts of it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "cli/finetune.h"
#include "cli/inputs.h"
#include "cli/timings.h"
#include "core/error.h"
#include "core/output_file.h"
#include "core/profile.h"
#include "core/tape.h"
#include "core/text_file.h"
#include "fusion/description.h"
#include "fusion/example_loss.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;
using fusion::ExampleKind;

/// One part of a run: what is trained, and where it is written.
struct Phase {
  std::string name;
  train::Parameters trained;
  train::TrainerOptions options;
};

// --- the model ---

/// What --chat-template names.
std::optional<text::ChatTemplate> given_template(const FinetuneOptions& o,
                                                 const fusion::Examples& examples) {
  if (o.chat_template.empty()) return std::nullopt;
  const auto talks = [](const auto& e) { return e.kind == ExampleKind::conversation; };
  if (std::ranges::none_of(examples.list, talks))
    throw ArgumentError(
        concat("--chat-template is for {\"messages\"}, of which ", o.file, " has none"));
  if (o.chat_template == "chatml")
    return text::ChatTemplate::parse(text::ChatTemplate::chatml(), "chatml");
  return text::ChatTemplate::parse(read_text_file(o.chat_template), o.chat_template);
}

/// A folder per class: {"image", "label"} for each image.
fusion::Examples read_data(const std::string& file) {
  std::error_code ignored;
  if (!fs::is_directory(file, ignored)) return fusion::read_examples(file);
  fusion::Examples out{
      .file = file, .kind = ExampleKind::classification, .mixed = false, .list = {}};
  std::set<fs::path> folders;
  for (const fs::directory_entry& entry : fs::directory_iterator(file))
    if (entry.is_directory()) folders.insert(entry.path());
  for (const fs::path& folder : folders) {
    for (const std::string& image : expand_folders({folder.string()})) {
      fusion::Example example;
      example.kind = ExampleKind::classification;
      example.line = std::ssize(out.list) + 1;
      example.image = image;
      example.label = folder.filename().string();
      if (fs::is_regular_file(image, ignored)) out.list.push_back(std::move(example));
    }
  }
  if (out.list.empty())
    throw FormatError(concat(file, ": has no folders with images, one for each class"));
  return out;
}

/// A checkpoint in memory of its own, to be changed.
struct Student {
  fs::path directory;
  Json config;  // what the result's config.json says
  train::Parameters parameters;
  std::optional<fusion::NewLora> lora;  // then this is what is trained and saved
  std::shared_ptr<const fusion::Model> model;
  bool new_head = false;

  const train::Parameters& saved() const { return lora ? lora->parameters : parameters; }
};

/// Where a checkpoint's new classifier goes, and how HF calls the whole.
struct NewHead {
  std::string trunk, layer;  // prefixes of all else and of the classifier
  bool texts;                // it judges texts: without a bias, on the decoder's width
  const char* architecture;
};

NewHead new_head_of(const Student& student, bool texts) {
  const std::map<std::string, NewHead> images = {
      {"vit", {"vit.", "classifier.", false, "ViTForImageClassification"}},
      {"deit", {"deit.", "classifier.", false, "DeiTForImageClassification"}}};
  const std::map<std::string, NewHead> writers = {
      {"gpt2", {"transformer.", "score.", true, "GPT2ForSequenceClassification"}},
      {"llama", {"model.", "score.", true, "LlamaForSequenceClassification"}}};
  const auto& known = texts ? writers : images;
  const std::string type = student.config.value("model_type", "");
  if (const auto found = known.find(type); found != known.end()) return found->second;
  throw UnsupportedError(
      concat(student.directory.string(), ": a checkpoint of type ", type,
             " gets no head for new classes of ",
             texts ? "texts; give a GPT-2 or Llama" : "images; give a ViT or DeiT"));
}

/// Gives a checkpoint a head for the classes of the examples, unless it knows them all (`known`).
void fit_head(Student& student, const fusion::Examples& examples,
              const std::vector<std::string>& known) {
  std::set<std::string> names;
  for (const fusion::Example& e : examples.list) {
    if (e.label_is_index) return;
    names.insert(e.label);
  }
  const auto is_known = [&](const std::string& n) { return std::ranges::count(known, n) > 0; };
  if (std::ranges::all_of(names, is_known)) return;
  const NewHead head = new_head_of(student, examples.list.front().image.empty());
  std::erase_if(student.parameters, [](const NamedTensor& p) {
    return std::ranges::any_of(std::array{"classifier.", "pooler.", "score.", "lm_head."},
                               [&](const char* part) { return p.name.find(part) != p.name.npos; });
  });
  for (NamedTensor& p : student.parameters)
    if (!p.name.starts_with(head.trunk)) p.name = head.trunk + p.name;
  const Config config = Config::parse(student.config.dump(), "config.json");
  const std::int64_t width =
      head.texts ? text::width_of_language_model(config) : student.config.value("hidden_size", 768);
  const auto classes = static_cast<std::int64_t>(names.size());
  const auto add = [&](const std::string& name, const Shape& shape) {
    student.parameters.push_back({name, train::initial_value(name, shape, 0.02, 1)});
  };
  add(head.layer + "weight", {classes, width});
  if (!head.texts) add(head.layer + "bias", {classes});
  std::ranges::sort(student.parameters, {}, &NamedTensor::name);
  Json by_id = Json::object(), by_name = Json::object();
  for (const std::string& name : names) {
    by_name[name] = by_id.size();
    by_id[std::to_string(by_id.size())] = name;
  }
  student.config["id2label"] = by_id;
  student.config["label2id"] = by_name;
  student.config["num_labels"] = classes;
  student.config["architectures"] = {head.architecture};
  student.new_head = true;
}

Student open_student(const FinetuneOptions& o, const fusion::Examples& examples) {
  Student student;
  student.directory = o.model.empty() ? fusion::default_model() : fs::path(o.model);
  // Opened once as it is: whatever is wrong with it is said in the usual words.
  const auto opened = fusion::Model::open(student.directory, {.needs_tokenizer = false});
  student.config = Json::parse(read_text_file(student.directory / "config.json"));
  student.config.erase("quantization_config");
  for (const char* key : {"dtype", "torch_dtype"})
    if (student.config.contains(key)) student.config[key] = "float32";
  student.parameters = train::copy_of(Weights::open(student.directory));
  if (examples.kind == ExampleKind::classification) {
    fit_head(student, examples, opened->labels());
  }
  train::Parameters all = student.parameters;
  if (o.lora.rank > 0) {
    if (student.new_head)
      throw ArgumentError(
          "a new head for other classes is no part of an adapter: fine-tune "
          "without --lora first");
    student.lora = fusion::new_lora(all, o.lora, student.directory.string(), o.trainer.seed);
    all.insert(all.end(), student.lora->layers.begin(), student.lora->layers.end());
  }
  student.model = fusion::Model::open(
      student.directory, {.weights = Weights::of(all),
                          .config = Config::parse(student.config.dump(), "config.json"),
                          .needs_tokenizer = examples.kind != ExampleKind::classification ||
                                             examples.list.front().image.empty()});
  return student;
}

/// The number of the last block of the text decoder; -1 without one.
std::int64_t last_block(const train::Parameters& parameters) {
  std::int64_t last = -1;
  for (const NamedTensor& p : parameters) {
    if (p.name.find("encoder.") != p.name.npos || p.name.find("tower.") != p.name.npos) continue;
    for (const std::string_view mark : {"layers.", "h."}) {
      const auto at = ("." + p.name).find(concat(".", mark));
      if (at == p.name.npos || at + mark.size() >= p.name.size()) continue;
      const char* digits = p.name.c_str() + at + mark.size();
      if (*digits >= '0' && *digits <= '9')
        last = std::max<std::int64_t>(last, std::strtoll(digits, nullptr, 10));
    }
  }
  return last;
}

/// Patterns of what --recipe last-layer trains first: the classifier or the output layer of the
/// decoder with the norm before it; where that is the token embedding, its last block instead.
std::vector<std::string> head_of(const train::Parameters& parameters) {
  const auto any = [&](const std::string& part) {
    return std::ranges::any_of(parameters,
                               [&](const auto& p) { return p.name.find(part) != p.name.npos; });
  };
  for (const std::string head : {"classifier.", "score."})
    if (any(head)) return {concat("*", head, "*")};
  std::vector<std::string> patterns;
  for (const std::string part :
       {"ln_f.", "decoder.layer_norm.", "model.norm.", "decoder.norm.", "lm_head."})
    if (any(part)) patterns.push_back(concat("*", part, "*"));
  const std::int64_t block = last_block(parameters);
  if (!any("lm_head.") && block >= 0) {
    for (const std::string& part : {concat("decoder.layers.", block, "."), concat("h.", block, "."),
                                    concat("model.layers.", block, ".")})
      if (any(part)) patterns.push_back(concat("*", part, "*"));
  }
  return patterns;
}

// --- the run ---

class FinetuneRun {
 public:
  explicit FinetuneRun(const FinetuneOptions& o)
      : o_(o),
        examples_(limited(read_data(o.file))),
        chat_template_(given_template(o, examples_)),
        student_(open_student(o, examples_)),
        loss_(student_.model, examples_, loss_options()),
        progress_(o) {
    if (student_.model->dual && o.batch < 2)
      throw ArgumentError("pairs are told apart within a batch: give --batch 2 or more");
    if (!o.validation.empty()) {
      fusion::ExampleLossOptions plain = loss_options();  // one text, whole images, all tokens
      plain.texts = 1;
      plain.least_view = 1;
      plain.sampled_tokens = 0;
      plain.rewards.clear();
      held_out_.emplace(student_.model, read_data(o.validation), plain);
      const bool classes = examples_.kind == ExampleKind::classification;
      if (classes != (held_out_->examples().kind == ExampleKind::classification))
        throw ArgumentError(concat(o.validation, ": another kind of examples than ", o.file));
    }
    plan_phases();
  }

  int run();

 private:
  fusion::Examples limited(fusion::Examples examples) const {
    if (o_.limit > 0 && o_.limit < std::ssize(examples.list))
      examples.list.resize(static_cast<std::size_t>(o_.limit));
    return examples;
  }
  fusion::ExampleLossOptions loss_options() const {
    fusion::ExampleLossOptions options;
    options.language = o_.language;
    options.task = o_.task;
    options.answer_prefix = o_.answer_prefix;
    options.label_smoothing = static_cast<float>(o_.smoothing);
    options.texts = o_.texts;
    options.least_view = o_.least_view;
    options.seed = o_.trainer.seed;
    options.sampled_tokens = o_.sampled_tokens;
    options.rewards = o_.rewards;
    options.draws = o_.draws;
    options.chat_template = chat_template_;
    if (!o_.pair_loss.empty())
      options.pair_loss =
          o_.pair_loss == "sigmoid" ? fusion::PairLoss::sigmoid : fusion::PairLoss::softmax;
    return options;
  }
  train::Parameters chosen() const;
  void plan_phases();
  std::int64_t step_size() const { return o_.batch * o_.trainer.accumulation; }
  std::vector<std::int64_t> batch_of(std::int64_t step, std::int64_t batch, std::int64_t& turn);
  train::BatchLoss batch_loss(Context& ctx, std::int64_t step, std::int64_t batch);
  /// Mean loss and share of right targets on the held-out examples.
  std::pair<double, double> score(Context& ctx) const;
  void describe(const fs::path& folder) const;
  void keep_features(Context& ctx, const train::Parameters& trained, const fs::path& folder);
  bool train(Context& ctx, const Phase& phase);
  void check_media(const fusion::ExampleLoss& loss) const;
  /// Of the first batch: seconds with and without rows that are kept, bytes for the way back, loss.
  struct Measured {
    double whole = 0, again = 0, kept = 0, loss = 0;
  };
  Measured measure(Context& ctx);
  void print_plan(Context& ctx);
  void print_result(Context& ctx);

  const FinetuneOptions& o_;
  fusion::Examples examples_;
  std::optional<text::ChatTemplate> chat_template_;  // instead of the checkpoint's
  Student student_;
  fusion::ExampleLoss loss_;
  std::optional<fusion::ExampleLoss> held_out_;
  std::vector<Phase> phases_;
  TrainProgress progress_;
  double reward_ = 0;  // of answers drawn since the last score
  std::int64_t drawn_ = 0;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;  // of the examples in this epoch
};

train::Parameters FinetuneRun::chosen() const {
  train::Parameters trained = student_.saved();
  if (!o_.only.empty()) trained = train::matching(trained, o_.only);
  if (!o_.freeze.empty()) trained = train::not_matching(trained, o_.freeze);
  if (trained.empty()) throw ArgumentError("nothing is left to train: everything is frozen");
  return trained;
}

void FinetuneRun::plan_phases() {
  train::TrainerOptions options = o_.options();
  if (student_.lora) options.weights_file = "adapter_model.safetensors";
  const auto batches = [&](double epochs) {
    return std::max<std::int64_t>(
        1,
        static_cast<std::int64_t>(
            epochs * static_cast<double>(loss_.size()) / static_cast<double>(step_size()) + 0.5));
  };
  const std::int64_t steps = o_.steps > 0 ? o_.steps : batches(o_.epochs);
  if (held_out_ && options.evaluate_every == 0) options.evaluate_every = batches(1);
  if (!held_out_) options.evaluate_every = 0;
  const train::Parameters trained = chosen();
  options.schedule.steps = steps;
  options.schedule.warmup = std::min(options.schedule.warmup, steps / 10);
  if (student_.lora && o_.recipe != "all")
    throw ArgumentError("--lora and --recipe last-layer are two ways; choose one");
  if (o_.recipe == "all") {
    phases_ = {{"all", trained, options}};
    return;
  }
  Phase head{"head", train::matching(trained, head_of(trained)), options};
  head.options.run = fs::path(o_.run) / "head";
  head.options.schedule.steps = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(o_.head_share * static_cast<double>(steps)));
  Phase rest{"all", trained, options};
  rest.options.schedule.steps = std::max<std::int64_t>(1, steps - head.options.schedule.steps);
  rest.options.schedule.peak *= o_.later_rate;
  phases_ = {head, rest};
}

/// Every epoch has all examples, in an order of its own that follows from the seed.
std::vector<std::int64_t> FinetuneRun::batch_of(std::int64_t step, std::int64_t batch,
                                                std::int64_t& turn) {
  std::vector<std::int64_t> which;
  std::int64_t at = (step * o_.trainer.accumulation + batch) * o_.batch;
  turn = at / loss_.size();
  for (std::int64_t i = 0; i < o_.batch; ++i, ++at) {
    if (const std::int64_t epoch = at / loss_.size(); epoch != epoch_) {
      epoch_ = epoch;
      order_.resize(static_cast<std::size_t>(loss_.size()));
      std::iota(order_.begin(), order_.end(), std::int64_t{0});
      std::mt19937_64 generator(o_.trainer.seed * 0x9E3779B97F4A7C15u +
                                static_cast<std::uint64_t>(epoch));
      for (std::size_t n = order_.size(); n > 1; --n)
        std::swap(order_[n - 1], order_[generator() % n]);
    }
    which.push_back(order_[static_cast<std::size_t>(at % loss_.size())]);
  }
  return which;
}

train::BatchLoss FinetuneRun::batch_loss(Context& ctx, std::int64_t step, std::int64_t batch) {
  std::int64_t turn = 0;
  const std::vector<std::int64_t> which = batch_of(step, batch, turn);
  const fusion::ExampleLoss::Sum sum = loss_(ctx, which, turn);
  reward_ += sum.reward;
  drawn_ += sum.drawn;
  return {sum.loss, sum.count};
}

std::pair<double, double> FinetuneRun::score(Context& ctx) const {
  double loss = 0, right = 0, count = 0;
  for (std::int64_t i = 0; i < held_out_->size(); i += o_.batch) {
    std::vector<std::int64_t> which(
        static_cast<std::size_t>(std::min(o_.batch, held_out_->size() - i)));
    std::iota(which.begin(), which.end(), i);
    const fusion::ExampleLoss::Sum sum = (*held_out_)(ctx, which, 0);
    loss += static_cast<double>(sum.loss.data()[0]);
    right += static_cast<double>(sum.right);
    count += static_cast<double>(sum.count);
  }
  return {loss / count, right / count};
}

void FinetuneRun::describe(const fs::path& folder) const {
  if (student_.lora) {
    write_file(folder / "adapter_config.json", student_.lora->config);
  } else {
    fusion::copy_description(student_.directory, folder);
    write_file(folder / "config.json", student_.config.dump(2) + "\n");
  }
  if (chat_template_) write_file(folder / "chat_template.jinja", chat_template_->source());
}

/// The rows of towers that stay as they are can be found once for all.
void FinetuneRun::keep_features(Context& ctx, const train::Parameters& trained,
                                const fs::path& folder) {
  Tape tape;
  for (const NamedTensor& p : trained) tape.watch(p.tensor);
  const TapeScope recording(ctx, &tape);
  loss_.keep_features(ctx, folder);
  if (held_out_) held_out_->keep_features(ctx, folder);
}

bool FinetuneRun::train(Context& ctx, const Phase& phase) {
  train::Trainer trainer(student_.saved(), phase.trained, phase.options);
  trainer.batch_loss = [this](Context& c, std::int64_t step, std::int64_t batch) {
    return batch_loss(c, step, batch);
  };
  trainer.describe = [this](const fs::path& folder) { describe(folder); };
  if (held_out_) {
    trainer.evaluate = [&](Context& c) {
      const auto [loss, right] = score(c);
      progress_.clear();
      report(concat(phase.name, ", step ", trainer.step(), ": held-out loss ", loss, ", ",
                    100 * right, " % of ", loss_.unit(), " right",
                    drawn_ ? concat(", mean reward ", reward_ / static_cast<double>(drawn_)) : ""));
      reward_ = 0;
      drawn_ = 0;
      return loss;
    };
  }
  trainer.on_step = [this](const train::StepReport& r) {
    loss_.keep_bounds();
    progress_.on_step(r);
  };
  trainer.stop = [] { return InterruptGuard::interrupted(); };
  if (o_.resume && trainer.resume())
    report(concat(phase.name, ": going on from step ", trainer.step()));
  const bool finished = trainer.run(ctx);
  progress_.clear();
  if (!finished) {
    report(concat("stopped; tessera finetune --resume goes on from step ", trainer.step(), " of ",
                  phase.name));
  }
  return finished;
}

/// What can't be read is said before hours are spent.
void FinetuneRun::check_media(const fusion::ExampleLoss& loss) const {
  Progress progress("check", "examples", !o_.json);
  for (std::int64_t i = 0; i < loss.size() && !InterruptGuard::interrupted(); ++i) {
    progress.show(static_cast<double>(i), static_cast<double>(loss.size()));
    loss.check_media(i);
  }
}

/// Also times a batch, so that what is said of hours is measured: twice, for the rows of towers
/// that stay as they are are computed the first time only.
FinetuneRun::Measured FinetuneRun::measure(Context& ctx) {
  const TemporaryFolder folder;
  keep_features(ctx, phases_.back().trained, folder.path());
  Measured out;
  for (double* seconds : {&out.whole, &out.again}) {
    const auto start = std::chrono::steady_clock::now();
    const train::BatchLoss loss = batch_loss(ctx, 0, 0);
    *seconds = seconds_since(start);
    out.loss = static_cast<double>(loss.sum.data()[0]) / static_cast<double>(loss.count);
  }
  Tape tape;
  tape.keeps_inputs_only = o_.trainer.checkpoint_activations;
  for (const NamedTensor& p : phases_.back().trained) tape.watch(p.tensor);
  const TapeScope recording(ctx, &tape);
  batch_loss(ctx, 0, 0);
  out.kept = tape.kept_bytes();  // what the way back needs
  return out;
}

void FinetuneRun::print_plan(Context& ctx) {
  const Measured batch = measure(ctx);
  // It takes twice as long as the way there, or more.
  const double way_back = o_.trainer.checkpoint_activations ? 4 : 3;
  const std::int64_t trained = train::count(phases_.back().trained);
  const std::int64_t all = train::count(student_.parameters) + (student_.lora ? trained : 0);
  std::int64_t steps = 0;
  for (const Phase& phase : phases_) steps += phase.options.schedule.steps;
  const double memory =
      4.0 * static_cast<double>(all) + 12.0 * static_cast<double>(trained) + 2 * batch.kept;
  const auto batches = static_cast<double>(steps * o_.trainer.accumulation);
  const double total =
      batch.again * way_back * batches +
      std::max(0.0, batch.whole - batch.again) *
          std::min(batches, static_cast<double>(loss_.size()) / static_cast<double>(o_.batch));
  if (o_.json) {
    print_json({{"examples", loss_.size()},
                {"targets", loss_.targets()},
                {"longest", loss_.longest()},
                {"held_out", held_out_ ? held_out_->size() : 0},
                {"parameters", all},
                {"trained", trained},
                {"new_head", student_.new_head},
                {"steps", steps},
                {"first_loss", batch.loss},
                {"memory_bytes", static_cast<std::int64_t>(memory)},
                {"seconds", total}});
    return;
  }
  const auto row = [](const std::string& name, const std::string& value) {
    print_row(name, value, 17);
  };
  const bool classes = examples_.kind == ExampleKind::classification;
  row("examples", concat(loss_.size(), held_out_ ? concat(", held out ", held_out_->size()) : ""));
  row("to be learnt", concat(loss_.targets(), " ", loss_.unit()));
  if (!classes) row("longest", concat(loss_.longest(), " tokens"));
  row("parameters", concat(all, ", trained ", trained));
  if (student_.new_head) row("head", "new, for the classes of the examples");
  row("first loss", concat(batch.loss));
  row("steps", concat(steps, " of ", step_size(), " examples"));
  char text[64];
  std::snprintf(text, sizeof text, "%.0f MB", memory / 1e6);
  row("memory, about", text);
  row("time, about", clock_time(total).substr(0, clock_time(total).find('.')));
}

void FinetuneRun::print_result(Context& ctx) {
  Json line = {{"run", o_.run},
               {"loss", progress_.loss()},
               {"tokens_per_second", progress_.tokens_per_second()}};
  if (held_out_) {
    const auto [loss, right] = score(ctx);
    line["held_out_loss"] = loss;
    line["held_out_right"] = right;
  }
  if (o_.json) return print_json(line);
  std::string text = concat(o_.run, ": loss ", progress_.loss());
  if (held_out_) {
    text += concat(", held-out loss ", line["held_out_loss"].get<double>(), ", ",
                   100 * line["held_out_right"].get<double>(), " % right");
  }
  print_line(text);
}

int FinetuneRun::run() {
  Context ctx({.threads = o_.threads});
  ctx.rounded_products = o_.bf16;
  Profile profile;
  if (o_.timings) ctx.profile = &profile;
  if (!o_.dry_run) o_.check_folder();
  const InterruptGuard guard;
  check_media(loss_);
  if (held_out_) check_media(*held_out_);
  if (InterruptGuard::interrupted()) return kInterrupted;
  if (o_.dry_run) {
    print_plan(ctx);
    return kOk;
  }
  for (const Phase& phase : phases_) {
    const PhaseScope scope(ctx, "training");
    keep_features(ctx, phase.trained, fs::path(o_.run) / "features");
    if (!train(ctx, phase)) return kInterrupted;
  }
  print_result(ctx);
  if (o_.timings) std::fputs(profile_table(profile).c_str(), stderr);
  return kOk;
}

}  // namespace

int finetune(const FinetuneOptions& options) { return FinetuneRun(options).run(); }

void FinetuneOptions::add_common(Command& command, const char* what_a_batch_has) {
  const std::string the_run = "The run", parts = "What is trained (default: everything)";
  add_to(command, what_a_batch_has);
  command.add_option("--epochs", epochs, "Times through the examples")
      .show_default()
      .positive()
      .group(the_run);
  command.add_option("--steps", steps, "Steps, instead of epochs").positive().group(the_run);
  command.add_option("--validation", validation, "Examples held out, as DATA")
      .type_name("FILE")
      .group(the_run);
  command
      .add_option("--evaluate-every", trainer.evaluate_every,
                  "Steps between scores on them (default: an epoch)")
      .positive()
      .group(the_run);
  command.add_option("--limit", limit, "Only the first so many examples").positive().group(the_run);
  command.add_option("--freeze", freeze, "Leave parameters of such names as they are (* is any)")
      .type_name("PATTERN")
      .one_each()
      .group(parts);
  command.add_option("--only", only, "Train parameters of such names only")
      .type_name("PATTERN")
      .one_each()
      .group(parts);
  command
      .add_option("--least-view", least_view,
                  "See random views of images, mirrored half of the time, of at least this share "
                  "(1: whole)")
      .show_default()
      .range(0.05, 1.0)
      .group("Learning");
  command
      .add_option("--loss", pair_loss,
                  "Images and texts of one space: softmax (CLIP) or sigmoid (SigLIP; default where "
                  "the checkpoint has a logit_bias)")
      .one_of({"softmax", "sigmoid"})
      .group("Learning");
}

Run add_finetune(Command& program) {
  auto o = std::make_shared<FinetuneOptions>();
  o->batch = 8;
  o->trainer.schedule = {.peak = 1e-4, .floor = 0.1, .warmup = 100, .steps = 1};
  o->trainer.checkpoint_every = 250;
  Command command = program.add_command("finetune", "Teach a checkpoint your examples");
  command
      .add_option(
          "DATA", o->file,
          "JSON Lines: {\"audio\", \"text\"}, {\"image\", \"text\"}, {\"image\", "
          "\"label\"}, {\"text\", \"label\"}, {\"prompt\", \"completion\"}, {\"messages\"} or "
          "{\"text\"}; a table of these (.csv, .tsv); or a folder with a folder of images for each "
          "class")
      .required()
      .type_name("");
  command.add_option("-m,--model", o->model, "Checkpoint directory (default: the default model)")
      .type_name("DIR");
  o->add_common(command, "Examples of a batch");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help).show_default();
  };
  const std::string parts = "What is trained (default: everything)";
  add("--recipe", o->recipe,
      "all; or last-layer: the head alone first, then everything at a lower rate")
      .one_of({"all", "last-layer"})
      .group(parts);
  add("--head-share", o->head_share, "last-layer: share of the steps for the head alone")
      .range(0.0, 1.0)
      .group(parts);
  add("--later-rate", o->later_rate, "last-layer: what the rate is multiplied by after that")
      .positive()
      .group(parts);
  const std::string lora = "LoRA: train and save low-rank additions only";
  command.add_option("--lora", o->lora.rank, "Rank of what is added to each layer")
      .range(1, 4096)
      .group(lora);
  add("--lora-alpha", o->lora.alpha, "It is multiplied by this over the rank")
      .positive()
      .group(lora);
  add("--lora-dropout", o->lora.dropout, "Share of its inputs dropped")
      .range(0.0, 0.99)
      .group(lora);
  command
      .add_option("--lora-target", o->lora.targets,
                  "Layers of such names, as q_proj (default: queries and values, GPT-2's c_attn)")
      .type_name("NAME")
      .one_each()
      .group(lora);
  command.add_option("-l,--language", o->language, "Multilingual Whisper: language of the texts");
  command.add_option("--task", o->task, "Whisper: transcribe or translate; else a start sequence");
  command.add_option("--answer-prefix", o->answer_prefix,
                     "Stands before every text (default: a space for checkpoints that hear)");
  command
      .add_option("--chat-template", o->chat_template,
                  "{\"messages\"}: a Jinja template, or chatml, instead of the checkpoint's own")
      .type_name("FILE");
  add("--label-smoothing", o->smoothing, "Share of the probability for all other tokens")
      .range(0.0, 0.9)
      .group("Learning");
  add("--texts", o->texts, "Of an example with several texts, how many a batch takes")
      .positive()
      .group("Learning");
  add("--sampled-tokens", o->sampled_tokens,
      "Sampled softmax: the answers' tokens and so many others, drawn anew for every batch (0: "
      "all)")
      .non_negative()
      .group("Learning");
  const std::string reward = "Reward: answers are drawn, and the better ones made likelier";
  command
      .add_option("--reward", o->rewards,
                  "cider-d or bleu of captions without a prompt (twice: counts twice)")
      .type_name("NAME")
      .one_each()
      .group(reward);
  add("--draws", o->draws, "Answers drawn of each example").range(2, 1000).group(reward);
  command.footer(
      "Examples:\n  tessera finetune --model vit-tiny --recipe last-layer -o runs/flowers "
      "flowers/\n"
      "  tessera finetune --model whisper-tiny.en -o runs/mine --validation dev.jsonl "
      "speech.jsonl\n"
      "  tessera finetune --freeze '*tower*' -o runs/captions captions.jsonl\n"
      "  tessera finetune --model gpt2 --lora 8 -o runs/style texts.jsonl\n"
      "  tessera generate --model gpt2 --adapter runs/style \"Once\"");
  return [o] { return finetune(*o); };
}

}  // namespace tessera::cli
