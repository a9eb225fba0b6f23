#include "fusion/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/profile.h"
#include "fusion/sequence.h"

namespace tessera::fusion {
namespace {

using Clock = std::chrono::steady_clock;

struct Embedded {
  std::vector<std::int32_t> ids;
  Tensor rows, memory;
};

Embedded embed(Context& ctx, const Model& model, const Prompt& prompt,
               const GenerateOptions& options) {
  const Task task = model.task(options.task);
  const PhaseScope phase(ctx, "encode");
  Sequence sequence(ctx, model, model.decoder_for(options.task, options.adapter), task);
  sequence.add_ids(task.start);
  for (const auto& part : prompt) std::visit([&](const auto& p) { sequence.add(p); }, part);
  sequence.add_ids(task.end);
  sequence.demand_start();
  return {sequence.ids(), sequence.rows(), sequence.memory()};
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

text::GenerateJob Session::job(const text::LanguageModel& decoder,
                               const std::vector<std::int32_t>& ids, const Tensor& rows,
                               const Tensor& memory, const text::SamplingOptions& sampling,
                               const text::GenerateHooks& hooks,
                               std::function<void(Result)> on_result) {
  const auto start = Clock::now();
  const auto prefill = std::make_shared<double>(0);
  text::GenerateJob job{{decoder.new_cache(), rows, ids}, sampling, hooks, {}, {}};
  if (memory) {
    const PhaseScope phase(context_, "memory");
    decoder.set_memory(context_, memory, job.input.cache);
  }
  job.hooks.cancelled = [this, outer = hooks.cancelled] {
    return cancelled() || (outer && outer());
  };
  job.hooks.on_prefill = [start, prefill, outer = hooks.on_prefill] {
    *prefill = seconds_since(start);
    if (outer) outer();
  };
  job.on_result = [start, prefill, prompt = std::ssize(ids),
                   take = std::move(on_result)](std::vector<text::Generated> sequences) {
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
    take(std::move(result));
  };
  return job;
}

text::GenerateJob Session::job(const Prompt& prompt, const GenerateOptions& options,
                               const OnText& on_text, std::function<void(Result)> on_result) {
  const auto start = Clock::now();
  const Embedded embedded = embed(context_, *model_, prompt, options);
  const double encode = seconds_since(start);
  text::GenerateHooks hooks;
  if (on_text)
    hooks.on_token = [on_text](std::int32_t, const std::string& piece) {
      return piece.empty() || on_text(piece);
    };
  return job(model_->decoder_for(options.task, options.adapter), embedded.ids, embedded.rows,
             embedded.memory, options.sampling.value_or(defaults(options.task)), hooks,
             [encode, take = std::move(on_result)](Result result) {
               result.timings.encode = encode;
               take(std::move(result));
             });
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
