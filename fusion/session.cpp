#include "fusion/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/profile.h"
#include "fusion/sequence.h"
#include "fusion/transcribe.h"
#include "text/score.h"

namespace tessera::fusion {
namespace {

using Clock = std::chrono::steady_clock;

struct Embedded {
  std::vector<std::int32_t> ids;
  Tensor rows, memory;
};

Embedded embed(Context& ctx, const Model& model, const text::LanguageModel& decoder,
               const Task& task, const Prompt& prompt) {
  const PhaseScope phase(ctx, "encode");
  Sequence sequence(ctx, model, decoder, task);
  sequence.add_ids(task.start);
  for (const auto& part : prompt) std::visit([&](const auto& p) { sequence.add(p); }, part);
  sequence.add_ids(task.end);
  sequence.demand_start();
  return {sequence.ids(), sequence.rows(), sequence.memory()};
}

/// How likely Whisper's decoder takes a memory for one without speech: by its token for that, right
/// after the one that starts a text.
double no_speech_probability(Context& ctx, const Model& model, const text::LanguageModel& decoder,
                             const Task& task, KvCache& cache) {
  for (const char* name : {"<|nospeech|>", "<|nocaptions|>"}) {  // now, and before 2023
    const auto token = model.tokenizer->id_of(name);
    if (!token) continue;
    return text::probability_of(
        text::logits_after(ctx, decoder, std::span(task.start).first(1), cache), *token);
  }
  throw FormatError(concat(model.path.string(),
                           ": has a no_speech_threshold, but its tokenizer no token "
                           "<|nospeech|> or <|nocaptions|>"));
}

/// The sound of a prompt that has nothing else to be transcribed, where it is longer than a window;
/// else null.
const Sound* long_sound(const Model& model, const Prompt& prompt, const std::string& name) {
  if (name != "transcribe" || model.speech || !model.audio || !model.log_mel) return nullptr;
  const Task task = model.task(name);
  const Sound* found = nullptr;
  for (const auto& part : prompt) {
    if (std::holds_alternative<Image>(part) && !task.attends_to_images) continue;
    const Sound* sound = std::get_if<Sound>(&part);
    if (!sound || !task.attends_to_sounds || found) return nullptr;
    found = sound;
  }
  const bool long_enough =
      found && std::ssize(found->samples) > model.log_mel->samples_per_window();
  return long_enough ? found : nullptr;
}

void check_parts(const Model& model) {
  if (!model.decoder) {
    throw UnsupportedError(concat(model.path.string(), ": this checkpoint (", model.family,
                                  ") has no text decoder and can't write text"));
  }
}

}  // namespace

Timings& Timings::operator+=(const Timings& other) {
  encode += other.encode;
  prefill += other.prefill;
  decode += other.decode;
  prompt_tokens += other.prompt_tokens;
  new_tokens += other.new_tokens;
  return *this;
}

Session::Session(std::shared_ptr<const Model> model, const ContextOptions& options)
    : model_(std::move(model)), context_(options) {}

text::GenerateJob Session::job(const text::LanguageModel& decoder, text::GenerateInput input,
                               const Tensor& memory, const text::SamplingOptions& sampling,
                               const text::GenerateHooks& hooks,
                               std::function<void(Result)> on_result, const Listen& listen) {
  const auto start = Clock::now();
  text::GenerateJob job{std::move(input), sampling, hooks, {}, {}};
  if (memory) {
    const PhaseScope phase(context_, "memory");
    decoder.set_memory(context_, memory, job.input.cache);
  }
  const bool silent = listen && !listen(job.input.cache);
  const auto prefill = std::make_shared<double>(seconds_since(start));
  job.hooks.cancelled = [this, silent, outer = hooks.cancelled] {
    return silent || cancelled() || (outer && outer());
  };
  job.hooks.on_prefill = [prefill, outer = hooks.on_prefill](double seconds) {
    *prefill += seconds;
    if (outer) outer(seconds);
  };
  job.on_result = [this, silent, start, prefill, prompt = std::ssize(job.input.prompt_ids),
                   take = std::move(on_result)](std::vector<text::Generated> sequences) {
    if (silent && !cancelled()) sequences.front().stop_reason = text::StopReason::end_of_text;
    Result result;
    const text::Generated& best = sequences.front();
    result.text = best.text;
    result.ids = best.ids;
    result.stop_reason = best.stop_reason;
    result.timings.prefill = *prefill;
    result.timings.decode = seconds_since(start) - *prefill;
    result.timings.prompt_tokens = prompt;
    result.timings.new_tokens = std::ssize(best.ids);
    result.sequences = std::move(sequences);
    result.silent = silent;
    take(std::move(result));
  };
  return job;
}

text::GenerateJob Session::job(const text::LanguageModel& decoder,
                               const std::vector<std::int32_t>& ids, const Tensor& rows,
                               const Tensor& memory, const text::SamplingOptions& sampling,
                               const text::GenerateHooks& hooks,
                               std::function<void(Result)> on_result) {
  return job(decoder, {decoder.new_cache(), rows, ids}, memory, sampling, hooks,
             std::move(on_result), {});
}

text::GenerateJob Session::job(const Prompt& prompt, const GenerateOptions& options,
                               const OnText& on_text, std::function<void(Result)> on_result) {
  const auto start = Clock::now();
  const Task task = model_->task(options.task);
  const text::LanguageModel& decoder = model_->decoder_for(options.task, options.adapter);
  demand_attended(task, options.task, has_images(prompt), has_sounds(prompt));
  const Embedded embedded = embed(context_, *model_, decoder, task, prompt);
  const double encode = seconds_since(start);
  text::GenerateHooks hooks;
  if (on_text)
    hooks.on_token = [on_text](std::int32_t, const std::string& piece) {
      return piece.empty() || on_text(piece);
    };
  const auto no_speech = std::make_shared<std::optional<double>>();
  Listen listen;
  if (task.no_speech_threshold && task.attends_to_sounds && has_sounds(prompt)) {
    const double threshold = options.no_speech_threshold.value_or(*task.no_speech_threshold);
    listen = [&, threshold](KvCache& cache) {
      const PhaseScope phase(context_, "prefill");
      *no_speech = no_speech_probability(context_, *model_, decoder, task, cache);
      return **no_speech <= threshold;
    };
  }
  return job(
      decoder, {decoder.new_cache(), embedded.rows, embedded.ids}, embedded.memory,
      options.sampling.value_or(defaults(options.task)), hooks,
      [encode, no_speech, take = std::move(on_result)](Result result) {
        result.timings.encode = encode;
        result.no_speech_probability = *no_speech;
        take(std::move(result));
      },
      listen);
}

void Session::run(const text::LanguageModel& decoder, std::int64_t together,
                  const std::function<std::optional<text::GenerateJob>()>& next) {
  const text::Tokenizer* tokenizer = model_->tokenizer ? &*model_->tokenizer : nullptr;
  text::generate_all(context_, decoder, tokenizer, together, next);
}

Result Session::run_one(const text::LanguageModel& decoder, const MakeJob& make) {
  Result result;
  std::optional job = make([&](Result r) { result = std::move(r); });
  run(decoder, 1, [&] { return std::exchange(job, std::nullopt); });
  return result;
}

Result Session::generate_from(const text::LanguageModel& decoder,
                              const std::vector<std::int32_t>& ids, const Tensor& rows,
                              const Tensor& memory, const text::SamplingOptions& sampling,
                              const text::GenerateHooks& hooks) {
  return run_one(decoder, [&](auto on_result) {
    return job(decoder, ids, rows, memory, sampling, hooks, std::move(on_result));
  });
}

Result Session::generate(const Prompt& prompt, const GenerateOptions& options,
                         const OnText& on_text) {
  check_parts(*model_);
  if (const Sound* sound = long_sound(*model_, prompt, options.task))
    return transcribe_sound(*this, *sound, options, on_text);
  return run_one(model_->decoder_for(options.task, options.adapter), [&](auto on_result) {
    return job(prompt, options, on_text, std::move(on_result));
  });
}

void Session::generate_all(const GenerateOptions& options, std::int64_t together,
                           const std::function<std::optional<Job>()>& next) {
  check_parts(*model_);
  run(model_->decoder_for(options.task, options.adapter), together,
      [&]() -> std::optional<text::GenerateJob> {
        while (std::optional<Job> given = next()) {
          try {
            text::GenerateJob own = job(given->prompt, options, {}, given->on_result);
            own.on_error = given->on_error;
            return own;
          } catch (const Error&) {
            if (!given->on_error) throw;
            given->on_error(std::current_exception());
          }
        }
        return std::nullopt;
      });
}

std::vector<Session::Label> Session::best_labels(const Tensor& logits, std::int64_t top) const {
  const std::vector<std::string> names = model_->labels();
  const std::int64_t count = logits.numel();
  const std::vector<double> scores =
      text::softmax({logits.data(), static_cast<std::size_t>(count)});
  std::vector<Label> labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    labels.push_back({names[at], i, scores[at]});
  }
  std::ranges::stable_sort(labels, std::greater<>(), &Label::score);
  labels.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(top, 0, count)));
  return labels;
}

std::vector<Session::Label> Session::classify(const Image& image, std::int64_t top,
                                              Timings* timings) {
  if (!model_->vision || !model_->image_processor) {
    throw UnsupportedError(
        concat(model_->path.string(), ": this checkpoint has no image tower and can't classify"));
  }
  const auto start = Clock::now();
  const Tensor logits = [&] {
    const PhaseScope phase(context_, "encode");
    return model_->vision->classify(context_, model_->preprocess(context_, image));
  }();
  if (timings) timings->encode = seconds_since(start);
  return best_labels(logits, top);
}

std::vector<Session::Label> Session::classify(const std::string& text, std::int64_t top,
                                              Timings* timings) {
  const auto start = Clock::now();
  std::vector<std::int32_t> ids;
  if (model_->tokenizer) ids = model_->tokenizer->encode(text, {.add_special_tokens = true});
  const Tensor logits = [&] {
    const PhaseScope phase(context_, "prefill");
    return model_->score_texts(context_, {ids});
  }();
  if (timings) {
    timings->prefill = seconds_since(start);
    timings->prompt_tokens = std::ssize(ids);
  }
  return best_labels(logits, top);
}

}  // namespace tessera::fusion
