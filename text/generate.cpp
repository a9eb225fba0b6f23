#include "text/generate.h"

#include <algorithm>

#include "core/error.h"
#include "core/profile.h"
#include "text/decoding.h"

namespace tessera::text {
namespace {

/// Tokens before the first new one; throws where the prompt does not fit.
std::int64_t prompt_length(const LanguageModel& model, const GenerateInput& input) {
  const Tensor& rows = input.rows;
  if (!rows || rows.dim(0) == 0)
    throw ArgumentError("the prompt is empty: give at least one token");
  if (rows.rank() != 2 || rows.dim(1) != model.width()) {
    throw ShapeError(concat("the embedded prompt has shape ", rows.shape().str(),
                            ", expected [tokens, ", model.width(), "]"));
  }
  const std::int64_t length = input.cache.length() + rows.dim(0);
  if (length > model.max_positions()) {
    throw ArgumentError(concat("the prompt has ", length,
                               " tokens, but the model's context ends at ", model.max_positions(),
                               "; shorten it"));
  }
  return length;
}

/// Turns the ways to limit the length into max_new_tokens and min_new_tokens.
void resolve_lengths(Decoding& d, std::int64_t prompt) {
  SamplingOptions& o = d.options;
  // The last token is not fed back, so it needs no position.
  const std::int64_t by_context = d.model.max_positions() - prompt + 1;
  std::int64_t by_options = o.max_new_tokens;
  if (by_options == 0 && o.max_length > 0) {
    by_options = o.max_length - prompt;
    if (by_options <= 0) {
      throw ArgumentError(concat("the prompt has ", prompt, " tokens, but max_length is ",
                                 o.max_length, "; raise it or set max_new_tokens"));
    }
  }
  const bool limited = by_options > 0 && by_options <= by_context;
  o.max_new_tokens = limited ? by_options : by_context;
  d.at_limit = limited ? StopReason::max_tokens : StopReason::context_full;
  if (o.min_new_tokens == 0) o.min_new_tokens = std::max<std::int64_t>(0, o.min_length - prompt);
}

/// Runs the prompt; logits of what follows it [1, V].
Tensor prefill(Context& ctx, const LanguageModel& model, GenerateInput& input) {
  const PhaseScope phase(ctx, "prefill");
  const std::int64_t count = input.rows.dim(0);
  const Sequence sequence{&input.cache, count};
  const Tensor hidden = model.forward(ctx, input.rows, std::span(&sequence, 1));
  return model.logits(ctx, hidden.slice(count - 1, count));
}

}  // namespace

const char* name_of(StopReason reason) {
  switch (reason) {
    case StopReason::end_of_text:
      return "end_of_text";
    case StopReason::stop_string:
      return "stop_string";
    case StopReason::max_tokens:
      return "max_tokens";
    case StopReason::context_full:
      return "context_full";
    case StopReason::cancelled:
      return "cancelled";
  }
  return "";
}

bool Decoding::is_stop_token(std::int32_t id) const {
  return std::ranges::count(options.stop_tokens, id) > 0;
}

void Decoding::process(std::span<const std::int32_t> generated, std::span<float> logits) const {
  process_logits(options, prompt_ids, generated, logits);
  if (hooks.process_logits) hooks.process_logits(generated, logits);
}

Tensor Decoding::step(std::span<const std::int32_t> ids, std::span<KvCache* const> caches) const {
  std::vector<Sequence> sequences;
  for (KvCache* cache : caches) sequences.push_back({cache, 1});
  return model.logits(ctx, model.forward(ctx, model.embed(ctx, ids), sequences));
}

std::span<float> row(Tensor& logits, std::size_t i) {
  const auto width = static_cast<std::size_t>(logits.dim(1));
  return {logits.data() + i * width, width};
}

TextStream::TextStream(const Decoding& decoding) : filter_(decoding.options.stop_strings) {
  if (decoding.tokenizer) decoder_.emplace(*decoding.tokenizer);
}

std::string TextStream::push(std::int32_t id) {
  std::string piece = decoder_ ? filter_.push(decoder_->push(id)) : std::string();
  text_ += piece;
  return piece;
}

std::string TextStream::finish() {
  std::string piece = decoder_ ? filter_.push(decoder_->finish()) : std::string();
  piece += filter_.finish();
  text_ += piece;
  return piece;
}

std::vector<Generated> generate(Context& ctx, const LanguageModel& model,
                                const Tokenizer* tokenizer, GenerateInput input,
                                const SamplingOptions& options, const GenerateHooks& hooks) {
  options.validate(model.vocab_size());
  if (!tokenizer && !options.stop_strings.empty()) {
    throw ArgumentError("stop strings need a tokenizer, but there is none");
  }
  const std::int64_t prompt = prompt_length(model, input);
  Decoding decoding{ctx, model, tokenizer, hooks, std::move(input.prompt_ids), options, {}};
  resolve_lengths(decoding, prompt);
  if (decoding.cancelled()) {
    Generated nothing;
    nothing.stop_reason = StopReason::cancelled;
    return {nothing};
  }
  const Tensor logits = prefill(ctx, model, input);
  if (hooks.on_prefill) hooks.on_prefill();
  const PhaseScope phase(ctx, "decode");
  const auto search = options.num_beams > 1 ? beam_search : sample;
  return search(decoding, std::move(input.cache), logits);
}

}  // namespace tessera::text
