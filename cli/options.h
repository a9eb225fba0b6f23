#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/output.h"
#include "fusion/conversation.h"
#include "fusion/examples.h"
#include "fusion/session.h"

namespace tessera::cli {

/// Options that every command with a model has.
struct CommonOptions {
  std::string model;  ///< empty: the default model
  std::vector<std::string> adapters;
  int threads = 0;
  std::string dtype = "stored";   ///< what the checkpoint has
  std::string kv_cache = "auto";  ///< of decoders
  bool json = false, timings = false, verbose = false;

  void add_to(Command& command, bool default_model);
  ContextOptions context() const;
  /// Opens the checkpoint (or the default one).
  std::shared_ptr<const fusion::Model> open() const;
  /// The last adapter's that has one, else the checkpoint's. Throws ArgumentError where there is
  /// none.
  text::ChatTemplate chat_template(const fusion::Model& opened) const;
};

/// How tokens are chosen; what is not given stays as the checkpoint says.
struct SamplingFlags {
  std::optional<std::int64_t> max_new_tokens, top_k, beams, no_repeat_ngram, returned,
      repeat_last_n;
  std::optional<double> temperature, top_p, min_p, repeat, presence, frequency, length_penalty;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  bool log_probabilities = false;

  void add_to(Command& command);
  void apply(text::SamplingOptions& options) const;
};

/// While it lives, Ctrl-C (and SIGTERM) cancel the session's call, or without a session are only
/// remembered; a second one ends the program at once.
class InterruptGuard {
 public:
  InterruptGuard();
  explicit InterruptGuard(fusion::Session& session);
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool interrupted();
};

enum ExitCode : int { kOk = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

/// What went wrong with a file, if it was an Error or a lack of memory; empty: nothing.
std::string problem_with(const std::string& file, const std::function<void()>& work);
/// The same of an example of a list, as "list.jsonl:3: ...".
std::string problem_with(const fusion::Examples& examples, const fusion::Example& example,
                         const std::function<void()>& work);
/// Says it on standard error, and with --json as {"file", "error"} as well.
void report_problem(const std::string& file, const std::string& problem, bool json);
/// Runs work(file) for each; an Error is reported (with --json also as {"file", "error"}), and the
/// rest goes on. Returns the exit code.
int for_each_file(const std::vector<std::string>& files, bool json,
                  const std::function<void(const std::string&)>& work);

/// {"file", "text", "ids", ...} of a result.
Json result_json(const std::string& file, const fusion::Result& result);
/// Without spaces and line ends at both ends.
std::string trim(const std::string& text);

/// Standard input to its end; at most `limit` bytes, else an ArgumentError.
std::string read_stdin(std::size_t limit);

/// Each adds its command to the program and returns what runs it.
Run add_caption(Command& program);
Run add_transcribe(Command& program);
Run add_prompt(Command& program);
Run add_generate(Command& program);
Run add_classify(Command& program);
Run add_tokenize(Command& program);
Run add_info(Command& program);
Run add_bench(Command& program);
Run add_perplexity(Command& program);
Run add_quantize(Command& program);
Run add_evaluate(Command& program);
Run add_embed(Command& program);
Run add_finetune(Command& program);
Run add_merge(Command& program);
Run add_plot(Command& program);
Run add_train(Command& program);
/// Those of `train`.
Run add_train_tokenizer(Command& train);
Run add_train_gpt(Command& train);
Run add_train_retrieval(Command& train);

}  // namespace tessera::cli
