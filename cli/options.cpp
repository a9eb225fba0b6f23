#include "cli/options.h"

#include <atomic>
#include <csignal>
#include <cstdio>

#include "core/error.h"

namespace tessera::cli {
namespace {

std::atomic<fusion::Session*> running{nullptr};
std::atomic<bool> was_interrupted{false};

void on_signal(int) {
  was_interrupted = true;
  if (fusion::Session* session = running) session->cancel();
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = static_cast<int>(SA_RESETHAND);  // the second one ends the program
  sigaction(signal, &action, nullptr);
}

}  // namespace

void CommonOptions::add_to(Command& command, bool default_model) {
  Option option = command
                      .add_option("-m,--model", model,
                                  concat("Checkpoint directory",
                                         default_model ? " (default: the default model)" : ""))
                      .type_name("DIR");
  if (!default_model) option.required();
  command
      .add_option("--adapter", adapters, "LoRA adapter to add to it (may be given several times)")
      .type_name("DIR")
      .one_each();
  command.add_option("-t,--threads", threads, "Threads (0: one for each physical core)")
      .range(0, 1024)
      .show_default();
  command
      .add_option(
          "--dtype", dtype,
          "Number format of the matrix products: as the checkpoint has it (stored: int8 or int4 "
          "where it is quantised, else f32), the fastest that was measured to keep answers (auto: "
          "int8 for words and sound, as stored for images), f32 is exact, bf16 is faster where the "
          "processor multiplies it, int8 is faster everywhere, int4 is smaller and fastest word by "
          "word")
      .one_of({"stored", "auto", "f32", "bf16", "int8", "int4"})
      .show_default();
  command
      .add_option("--kv-cache", kv_cache,
                  "Number format of the keys and values that a decoder keeps: auto (f32 beside "
                  "exact products, else bf16, and int8 for what it attends to of an image or a "
                  "sound where products are in int8 or int4), f32, bf16 or int8")
      .one_of({"auto", "f32", "bf16", "int8"})
      .show_default();
  command.add_flag("--json", json, "Print one JSON object a line");
  command.add_flag("--timings", timings, "Say on standard error where the time went");
  command.add_flag("-v,--verbose", verbose, "Print notes of the library on standard error");
}

ContextOptions CommonOptions::context() const {
  ContextOptions options;
  options.threads = threads;
  if (verbose) options.log = [](LogLevel, const std::string& message) { report(message); };
  return options;
}

std::shared_ptr<const fusion::Model> CommonOptions::open() const {
  const Precision precision = dtype == "f32"    ? Precision::f32
                              : dtype == "bf16" ? Precision::bf16
                              : dtype == "int8" ? Precision::int8
                              : dtype == "int4" ? Precision::int4
                              : dtype == "auto" ? Precision::automatic
                                                : Precision::as_stored;
  const CacheNumbers cache = kv_cache == "f32"    ? CacheNumbers::f32
                             : kv_cache == "bf16" ? CacheNumbers::bf16
                             : kv_cache == "int8" ? CacheNumbers::int8
                                                  : CacheNumbers::automatic;
  const auto opened = fusion::Model::open(
      model.empty() ? fusion::default_model() : std::filesystem::path(model),
      {.precision = precision, .cache = cache, .adapters = {adapters.begin(), adapters.end()}});
  if (verbose && !opened->unread.empty()) {
    report(concat(opened->path.string(), ": ", opened->unread.size(),
                  " tensors were not used, the first of them ", opened->unread.front()));
  }
  return opened;
}

text::ChatTemplate CommonOptions::chat_template(const fusion::Model& opened) const {
  for (auto adapter = adapters.rbegin(); adapter != adapters.rend(); ++adapter)
    if (auto found = text::ChatTemplate::of_checkpoint(*adapter)) return *found;
  return fusion::chat_template_of(opened);
}

void SamplingFlags::add_to(Command& command) {
  const std::string group = "Choosing tokens (default: what the checkpoint says)";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return command.add_option(name, value, help).group(group);
  };
  add("-n,--n-predict", max_new_tokens, "Most new tokens").positive();
  add("--temp", temperature, "Temperature; 0: always the likeliest token").non_negative();
  add("--top-k", top_k, "Sample among the k likeliest tokens (0: all)").non_negative();
  add("--top-p", top_p, "Sample among the likeliest tokens that make up this share")
      .range(0.0, 1.0);
  add("--min-p", min_p, "Drop tokens below this share of the likeliest one's probability")
      .range(0.0, 1.0);
  add("--repeat-penalty", repeat, "Divide the logits of tokens seen before (1: off)").positive();
  add("--repeat-last-n", repeat_last_n, "Tokens that --repeat-penalty looks at (0: all)")
      .non_negative();
  add("--presence-penalty", presence, "Subtracted once for tokens produced before");
  add("--frequency-penalty", frequency, "Subtracted for each time a token was produced");
  add("--no-repeat-ngram", no_repeat_ngram, "Never repeat as many tokens in a row").non_negative();
  add("-s,--seed", seed, "Seed of the sampling: same seed, same text");
  add("--beam-size", beams, "Beam search with as many beams (1: off)").range(1, 1024);
  add("--length-penalty", length_penalty, "Beam search: exponent of the length in the score");
  add("--num-return", returned, "Texts to return").range(1, 1024);
  add("--stop", stop, "End before this text (may be given several times)")
      .type_name("TEXT")
      .one_each();
  command.add_flag("--logprobs", log_probabilities, "With --json: log-probability of each token")
      .group(group);
}

void SamplingFlags::apply(text::SamplingOptions& o) const {
  const auto set = [](auto& to, const auto& from) {
    if (from) to = *from;
  };
  set(o.max_new_tokens, max_new_tokens);
  set(o.top_k, top_k);
  set(o.top_p, top_p);
  set(o.min_p, min_p);
  set(o.repetition_penalty, repeat);
  set(o.repeat_last_n, repeat_last_n);
  set(o.presence_penalty, presence);
  set(o.frequency_penalty, frequency);
  set(o.no_repeat_ngram_size, no_repeat_ngram);
  set(o.seed, seed);
  set(o.length_penalty, length_penalty);
  set(o.num_return_sequences, returned);
  if (temperature) {
    o.do_sample = *temperature > 0;
    o.temperature = *temperature > 0 ? *temperature : 1.0;
    o.num_beams = 1;
  }
  if (beams) {
    o.num_beams = *beams;
    if (*beams > 1 && !temperature) o.do_sample = false;
  }
  o.stop_strings.insert(o.stop_strings.end(), stop.begin(), stop.end());
  o.log_probabilities = log_probabilities;
}

InterruptGuard::InterruptGuard() {
  handle(SIGINT, on_signal);
  handle(SIGTERM, on_signal);
}

InterruptGuard::InterruptGuard(fusion::Session& session) : InterruptGuard() {
  running = &session;
  if (was_interrupted) session.cancel();
}

InterruptGuard::~InterruptGuard() {
  handle(SIGINT, SIG_DFL);
  handle(SIGTERM, SIG_DFL);
  running = nullptr;
}

bool InterruptGuard::interrupted() { return was_interrupted; }

std::string problem_with(const std::string& file, const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const Error& error) {
    return error.what();
  } catch (const std::bad_alloc&) {
    return concat(file, ": not enough memory");
  }
}

std::string problem_with(const fusion::Examples& examples, const fusion::Example& example,
                         const std::function<void()>& work) {
  const std::string place = fusion::where(examples, example), problem = problem_with(place, work);
  return problem.empty() || problem.starts_with(place + ":") ? problem
                                                             : concat(place, ": ", problem);
}

void report_problem(const std::string& file, const std::string& problem, bool json) {
  report(problem);
  if (json) print_json({{"file", file}, {"error", problem}});
}

int for_each_file(const std::vector<std::string>& files, bool json,
                  const std::function<void(const std::string&)>& work) {
  int code = kOk;
  for (const std::string& file : files) {
    if (InterruptGuard::interrupted()) break;
    const std::string problem = problem_with(file, [&] { work(file); });
    if (problem.empty()) continue;
    report_problem(file, problem, json);
    code = kFailed;
  }
  return InterruptGuard::interrupted() ? kInterrupted : code;
}

Json result_json(const std::string& file, const fusion::Result& result) {
  Json out = {{"file", file},
              {"text", trim(result.text)},
              {"ids", result.ids},
              {"stop_reason", text::name_of(result.stop_reason)}};
  if (!result.sequences.front().log_probabilities.empty())
    out["logprobs"] = result.sequences.front().log_probabilities;
  if (result.sequences.size() < 2) return out;
  for (const text::Generated& g : result.sequences) {
    out["sequences"].push_back({{"text", trim(g.text)}, {"ids", g.ids}, {"score", g.score}});
  }
  return out;
}

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string read_stdin(std::size_t limit) {
  std::string all;
  char buffer[1 << 16];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, stdin)) {
    all.append(buffer, n);
    if (all.size() > limit)
      throw ArgumentError(concat("standard input is longer than ", limit >> 20, " MiB"));
  }
  if (std::ferror(stdin)) throw IoError("standard input can't be read");
  return all;
}

}  // namespace tessera::cli
