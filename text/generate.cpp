#include "text/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.h"
#include "core/layers.h"
#include "core/profile.h"
#include "text/decoder.h"
#include "text/decoding.h"

namespace tessera::text {
namespace {

/// Tokens before the first new one; throws where the prompt does not fit.
std::int64_t prompt_length(const LanguageModel& model, GenerateInput& input) {
  const Tensor& rows = input.rows;
  if (!rows || rows.dim(0) == 0)
    throw ArgumentError("the prompt is empty: give at least one token");
  if (rows.rank() != 2 || rows.dim(1) != model.width()) {
    throw ShapeError(concat("the embedded prompt has shape ", rows.shape().str(),
                            ", expected [tokens, ", model.width(), "]"));
  }
  if (model.has_cross_attention()) memory_of(input.cache, 0);
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

/// A job under way: first its prompt, then its search.
class Live {
 public:
  Live(Context& ctx, const LanguageModel& model, const Tokenizer* tokenizer, GenerateJob job)
      : job_(std::move(job)),
        d_{ctx,          model, tokenizer, std::move(job_.hooks), std::move(job_.input.prompt_ids),
           job_.options, {}} {}

  bool in_prompt() const { return !search_; }

  /// Checks what it is given; false where it has ended already.
  bool start() {
    d_.options.validate(d_.model.vocab_size());
    if (!d_.tokenizer && !d_.options.stop_strings.empty())
      throw ArgumentError("stop strings need a tokenizer, but there is none");
    resolve_lengths(d_, prompt_length(d_.model, job_.input));
    if (!d_.cancelled()) return true;
    Generated nothing;
    nothing.stop_reason = StopReason::cancelled;
    job_.on_result({nothing});
    return false;
  }

  /// What it has to be run, and the caches that it goes to: embedded rows, or tokens.
  const Tensor& prompt() const { return job_.input.rows; }
  std::span<const std::int32_t> ids() const { return next_.ids; }
  void add_sequences(std::pmr::vector<Sequence>& sequences) {
    if (in_prompt()) sequences.push_back({&job_.input.cache, prompt_rows()});
    for (KvCache* cache : next_.caches) sequences.push_back({cache, 1});
  }
  /// How many rows of logits it is to take.
  std::int64_t takes() const { return in_prompt() ? 1 : std::ssize(next_.ids); }

  /// `seconds`: what it took to have them.
  void take(const Tensor& logits, double seconds) {
    ended_ = !guarded([&] { return choose(logits, seconds); });
  }
  bool ended() const { return ended_; }
  std::int64_t prompt_rows() const { return job_.input.rows.dim(0); }

  /// Whether `work` went well and wants to go on; its errors are the job's.
  template <class Work>
  bool guarded(const Work& work) {
    if (!job_.on_error) return work();
    try {
      return work();
    } catch (const Error&) {
      job_.on_error(std::current_exception());
      return false;
    }
  }

 private:
  /// False where it has ended.
  bool choose(Tensor logits, double seconds) {
    if (in_prompt()) {
      job_.input.rows = {};
      search_ = (d_.options.num_beams > 1 ? new_beam_search : new_sampling)(
          d_, std::move(job_.input.cache));
      if (d_.hooks.on_prefill) d_.hooks.on_prefill(seconds);
    }
    search_->take(logits);
    search_->next(next_);
    if (!next_.ids.empty() && !d_.cancelled()) return true;
    if (!next_.ids.empty()) search_->stop();
    job_.on_result(search_->finish());
    return false;
  }

  GenerateJob job_;
  Decoding d_;
  std::unique_ptr<Search> search_;
  Search::Next next_;
  bool ended_ = false;
};

using Jobs = std::vector<std::unique_ptr<Live>>;

/// What these jobs have to be run, all in their prompts or none: one after the other, embedded.
Tensor rows_of(Context& ctx, const LanguageModel& model, std::span<Live* const> jobs) {
  if (jobs.front()->in_prompt()) {
    std::vector<Tensor> rows;
    for (const Live* job : jobs) rows.push_back(job->prompt());
    return rows.size() == 1 ? rows.front() : join_rows(ctx, rows);
  }
  std::pmr::vector<std::int32_t> ids(ctx.lists());
  for (const Live* job : jobs) ids.insert(ids.end(), job->ids().begin(), job->ids().end());
  return model.embed(ctx, ids);
}

/// Runs what these jobs have to be run together, and lets each choose from what follows its own.
void pass(Context& ctx, const LanguageModel& model, std::span<Live* const> jobs) {
  const PhaseScope phase(ctx, jobs.front()->in_prompt() ? "prefill" : "decode");
  const auto start = std::chrono::steady_clock::now();
  std::pmr::vector<Sequence> sequences(ctx.lists());
  for (Live* job : jobs) job->add_sequences(sequences);
  const Tensor hidden =
      model.forward(ctx, rows_of(ctx, model, jobs), sequences, Outputs::last_rows);
  const Tensor logits = model.logits(ctx, hidden);
  const double seconds = seconds_since(start) / static_cast<double>(jobs.size());
  std::int64_t at = 0;
  for (Live* job : jobs) {
    const Tensor own = logits.slice(at, at + job->takes());
    at += job->takes();
    job->take(own, seconds);
  }
}

/// The next tokens of all jobs that are past their prompt in one pass, and prompts: so many that
/// their rows are rounded as those of one short prompt are, or one alone.
void step(Context& ctx, const LanguageModel& model, Jobs& jobs) {
  constexpr std::int64_t kPromptRows = 8;
  std::pmr::vector<Live*> decoding(ctx.lists()), prompts(ctx.lists());
  for (const auto& job : jobs) (job->in_prompt() ? prompts : decoding).push_back(job.get());
  if (!decoding.empty()) pass(ctx, model, decoding);
  for (auto first = prompts.begin(); first != prompts.end();) {
    auto last = first;
    std::int64_t rows = (*last++)->prompt_rows();
    while (last != prompts.end() && rows + (*last)->prompt_rows() <= kPromptRows)
      rows += (*last++)->prompt_rows();
    pass(ctx, model, {first, last});
    first = last;
  }
  std::erase_if(jobs, [](const auto& job) { return job->ended(); });
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

void generate_all(Context& ctx, const LanguageModel& model, const Tokenizer* tokenizer,
                  std::int64_t together, const std::function<std::optional<GenerateJob>()>& next) {
  if (together < 1)
    throw ArgumentError(concat(together, " prompts side by side; expected 1 or more"));
  Jobs jobs;
  bool more = true;
  while (true) {
    while (more && std::ssize(jobs) < together) {
      std::optional<GenerateJob> job = next();
      more = job.has_value();
      if (!job) break;
      auto live = std::make_unique<Live>(ctx, model, tokenizer, std::move(*job));
      if (live->guarded([&] { return live->start(); })) jobs.push_back(std::move(live));
    }
    if (jobs.empty()) return;
    step(ctx, model, jobs);
  }
}

std::vector<Generated> generate(Context& ctx, const LanguageModel& model,
                                const Tokenizer* tokenizer, GenerateInput input,
                                const SamplingOptions& options, const GenerateHooks& hooks) {
  std::vector<Generated> results;
  std::optional<GenerateJob> job = GenerateJob{
      std::move(input), options, hooks, [&](std::vector<Generated> r) { results = std::move(r); }};
  generate_all(ctx, model, tokenizer, 1, [&] { return std::exchange(job, std::nullopt); });
  return results;
}

}  // namespace tessera::text
