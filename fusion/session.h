#pragma once
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/context.h"
#include "fusion/model.h"
#include "fusion/prompt.h"
#include "text/generate.h"

namespace tessera::fusion {

/// Seconds and counts of one call.
struct Timings {
  double encode = 0;  ///< preprocessing and towers
  double prefill =
      0;              ///< the memory's keys and values, and the embedded prompt through the decoder
  double decode = 0;  ///< the tokens after it
  std::int64_t prompt_tokens = 0, new_tokens = 0;
  double seconds() const { return encode + prefill + decode; }
  Timings& operator+=(const Timings& other);
};

struct GenerateOptions {
  std::string task = "prompt";  ///< "caption", "transcribe", "prompt"
  std::optional<text::SamplingOptions>
      sampling;              ///< empty: what the checkpoint says (Session::defaults)
  std::string adapter = {};  ///< of OpenOptions::switchable; empty: what the task says
  /// In the place of the task's; 1: everything has a text. Tasks without one know no silence.
  std::optional<double> no_speech_threshold = {};
};

struct Result {
  std::string text;
  std::vector<std::int32_t> ids;  ///< generated, without prompt and stop token
  text::StopReason stop_reason = text::StopReason::max_tokens;
  std::vector<text::Generated> sequences;  ///< all of num_return_sequences, best first
  /// That nobody speaks, where a threshold asks for it. Above that: silent, and the text is empty.
  std::optional<double> no_speech_probability;
  bool silent = false;
  Timings timings;
};

/// Calls on one model, one after the other: owns threads, scratch memory and caches. For calls at
/// the same time make several sessions of the same model.
class Session {
 public:
  explicit Session(std::shared_ptr<const Model> model, const ContextOptions& options = {});

  const Model& model() const { return *model_; }
  Context& context() { return context_; }
  /// Sampling options that the checkpoint's files ask for.
  text::SamplingOptions defaults(const std::string& task) const { return model_->sampling(task); }

  /// Streams text as it becomes certain; false stops.
  using OnText = std::function<bool(const std::string& piece)>;
  /// Runs a prompt. What its task does not attend to is left out. A sound of several windows that
  /// is all there is to transcribe is taken window by window, as transcribe() does (not by Whisper
  /// checkpoints, and not by generate_all()). Throws UnsupportedError for what
  /// the model can't take (an image without an image tower, ...), ArgumentError for options out of
  /// range, prompts longer than the context, and those whose images and sounds are all left out.
  Result generate(const Prompt& prompt, const GenerateOptions& options = {},
                  const OnText& on_text = {});

  struct Job {
    Prompt prompt;
    std::function<void(Result)> on_result;
    /// What generate() would have thrown for it.
    std::function<void(std::exception_ptr)> on_error;
  };
  /// Runs prompts side by side, at most `together` at a time: each pass of the decoder takes the
  /// next tokens of all of them. What ends makes room for what `next` gives (empty: no more). The
  /// results are those of generate(), but for the rounding of products of so many rows; a timing is
  /// what passed until it was there, with the others' work in it.
  void generate_all(const GenerateOptions& options, std::int64_t together,
                    const std::function<std::optional<Job>()>& next);

  /// The most general form: decoder, start ids and memory rows are the caller's.
  Result generate_from(const text::LanguageModel& decoder, const std::vector<std::int32_t>& ids,
                       const Tensor& rows, const Tensor& memory,
                       const text::SamplingOptions& sampling, const text::GenerateHooks& hooks);
  /// The same as a job for run(), which ends with the session's cancel() too.
  text::GenerateJob job(const text::LanguageModel& decoder, const std::vector<std::int32_t>& ids,
                        const Tensor& rows, const Tensor& memory,
                        const text::SamplingOptions& sampling, const text::GenerateHooks& hooks,
                        std::function<void(Result)> on_result);
  text::GenerateJob job(const Prompt& prompt, const GenerateOptions& options, const OnText& on_text,
                        std::function<void(Result)> on_result);
  /// The result of the one job that is made with this to take it.
  using MakeJob = std::function<text::GenerateJob(std::function<void(Result)> on_result)>;
  Result run_one(const text::LanguageModel& decoder, const MakeJob& make);
  /// text::generate_all with the model's tokenizer.
  void run(const text::LanguageModel& decoder, std::int64_t together,
           const std::function<std::optional<text::GenerateJob>()>& next);

  /// Class scores of an image, best first. Throws UnsupportedError without a classification head.
  struct Label {
    std::string name;
    std::int64_t index;
    double score;  ///< softmax over all classes
  };
  std::vector<Label> classify(const Image& image, std::int64_t top, Timings* timings = nullptr);
  /// Of a text. Throws UnsupportedError without a text classifier.
  std::vector<Label> classify(const std::string& text, std::int64_t top,
                              Timings* timings = nullptr);

  /// Ends the running call soon, with StopReason::cancelled; from any thread or signal handler.
  /// Stays in force until reset() is called.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void reset() { cancelled_.store(false, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::vector<Label> best_labels(const Tensor& logits, std::int64_t top) const;
  /// The most general job. `listen`, if any, is asked once the cache holds the memory; false: the
  /// answer is empty.
  using Listen = std::function<bool(KvCache& cache)>;
  text::GenerateJob job(const text::LanguageModel& decoder, text::GenerateInput input,
                        const Tensor& memory, const text::SamplingOptions& sampling,
                        const text::GenerateHooks& hooks, std::function<void(Result)> on_result,
                        const Listen& listen);

  std::shared_ptr<const Model> model_;
  Context context_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace tessera::fusion
