#include "fusion/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/profile.h"
#include "fusion/sequence.h"

namespace tessera::fusion {
namespace {

using Clock = std::chrono::steady_clock;

Sequence embed(Context& ctx, const Model& model, const Prompt& prompt,
               const GenerateOptions& options) {
  const Task task = model.task(options.task);
  const PhaseScope phase(ctx, "encode");
  Sequence sequence(ctx, model, model.decoder_for(options.task, options.adapter));
  sequence.add_ids(task.start);
  for (const auto& part : prompt) std::visit([&](const auto& p) { sequence.add(p); }, part);
  sequence.add_ids(task.end);
  sequence.demand_start();
  return sequence;
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

Result Session::generate_from(const text::LanguageModel& decoder,
                              const std::vector<std::int32_t>& ids, const Tensor& rows,
                              const Tensor& memory, const text::SamplingOptions& sampling,
                              const text::GenerateHooks& hooks) {
  const auto start = Clock::now();
  text::GenerateInput input{decoder.new_cache(), rows, ids};
  if (memory) {
    const PhaseScope phase(context_, "memory");
    decoder.set_memory(context_, memory, input.cache);
  }
  Result result;
  text::GenerateHooks own = hooks;
  own.cancelled = [&, outer = hooks.cancelled] { return cancelled() || (outer && outer()); };
  own.on_prefill = [&, outer = hooks.on_prefill] {
    result.timings.prefill = seconds_since(start);
    if (outer) outer();
  };
  const text::Tokenizer* tokenizer = model_->tokenizer ? &*model_->tokenizer : nullptr;
  result.sequences = text::generate(context_, decoder, tokenizer, std::move(input), sampling, own);
  const text::Generated& best = result.sequences.front();
  result.text = best.text;
  result.ids = best.ids;
  result.stop_reason = best.stop_reason;
  result.timings.decode = seconds_since(start) - result.timings.prefill;
  result.timings.prompt_tokens = static_cast<std::int64_t>(ids.size());
  result.timings.new_tokens = static_cast<std::int64_t>(best.ids.size());
  return result;
}

Result Session::generate(const Prompt& prompt, const GenerateOptions& options,
                         const OnText& on_text) {
  check_parts(*model_);
  const auto start = Clock::now();
  const Sequence sequence = embed(context_, *model_, prompt, options);
  const double encode = seconds_since(start);
  text::GenerateHooks hooks;
  if (on_text)
    hooks.on_token = [&](std::int32_t, const std::string& piece) {
      return piece.empty() || on_text(piece);
    };
  Result result = generate_from(model_->decoder_for(options.task, options.adapter), sequence.ids(),
                                sequence.rows(), sequence.memory(),
                                options.sampling.value_or(defaults(options.task)), hooks);
  result.timings.encode = encode;
  return result;
}

std::vector<Session::Label> Session::best_labels(const Tensor& logits, std::int64_t top) const {
  const std::vector<std::string> names = model_->labels();
  const std::int64_t count = logits.numel();
  const float best = *std::max_element(logits.data(), logits.data() + count);
  double total = 0;
  std::vector<Label> labels;
  for (std::int64_t i = 0; i < count; ++i) {
    const double e = std::exp(static_cast<double>(logits.data()[i]) - best);
    total += e;
    labels.push_back({names[static_cast<std::size_t>(i)], i, e});
  }
  for (Label& label : labels) label.score /= total;
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
