// Greedy search and sampling: one token a step, drawn sequences side by side.
#include <algorithm>
#include <optional>
#include <utility>

#include "core/profile.h"
#include "text/decoding.h"

namespace tessera::text {
namespace {

/// One sequence that grows.
struct Draft {
  Draft(const Decoding& decoding, KvCache own_cache, std::uint64_t seed)
      : cache(std::move(own_cache)), random(seed), stream(decoding) {}
  KvCache cache;
  Random random;
  TextStream stream;
  std::optional<StopReason> ended;
  Generated out;
  double log_probability = 0;  // sum over what was chosen
};

/// log_softmax of the chosen one at temperature 1.
double log_probability_of(std::int32_t id, const std::vector<Candidate>& candidates,
                          double temperature) {
  std::vector<float> logits;
  double own = 0;
  for (const Candidate& c : candidates) {
    logits.push_back(static_cast<float>(c.logit * temperature));
    if (c.id == id) own = static_cast<double>(logits.back());
  }
  return own - log_sum_exp(logits);
}

std::int32_t draw_one(const Decoding& d, Draft& draft, std::span<const float> logits) {
  const std::vector<Candidate> candidates = warp_logits(d.options, logits);
  const std::int32_t id = draw(candidates, draft.random.uniform());
  if (d.options.average_log_probability)
    draft.log_probability += log_probability_of(id, candidates, d.options.temperature);
  return id;
}

std::int32_t take_best(const Decoding& d, Draft& draft, std::span<const float> logits) {
  const std::int32_t id = argmax(logits);
  if (d.options.average_log_probability) {
    draft.log_probability +=
        static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum_exp(logits);
  }
  return id;
}

std::int32_t choose(const Decoding& d, Draft& draft, std::span<float> logits) {
  std::vector<float> raw;
  if (d.options.log_probabilities) raw.assign(logits.begin(), logits.end());
  d.process(draft.out.ids, logits);
  const std::int32_t id =
      d.options.sampling() ? draw_one(d, draft, logits) : take_best(d, draft, logits);
  if (d.options.log_probabilities && !d.is_stop_token(id)) {
    const double logit = raw[static_cast<std::size_t>(id)];
    draft.out.log_probabilities.push_back(static_cast<float>(logit - log_sum_exp(raw)));
  }
  return id;
}

/// Chooses the next token of a draft; false where the user wants no more.
bool extend(const Decoding& d, Draft& draft, std::span<float> logits, bool shown) {
  const std::int32_t id = choose(d, draft, logits);
  if (d.is_stop_token(id)) {
    draft.ended = StopReason::end_of_text;
    return true;
  }
  draft.out.ids.push_back(id);
  const std::string piece = draft.stream.push(id);
  if (draft.stream.stopped()) {
    draft.ended = StopReason::stop_string;
  } else if (d.is_full(draft.out.ids.size())) {
    draft.ended = d.at_limit;
  }
  return !shown || !d.hooks.on_token || d.hooks.on_token(id, piece);
}

/// Drawn sequences side by side, or the one of greedy search.
class Sampling : public Search {
 public:
  Sampling(const Decoding& decoding, KvCache cache) : d_(decoding) {
    const auto count = static_cast<std::size_t>(d_.options.num_return_sequences);
    for (std::size_t i = 0; i < count; ++i) {
      drafts_.emplace_back(d_, i + 1 < count ? cache.clone() : std::move(cache),
                           d_.options.seed + i);
      drafts_.back().out.ids.reserve(static_cast<std::size_t>(
          std::min<std::int64_t>(d_.options.max_new_tokens, kLikelyTokens)));
    }
  }

  void take(Tensor& logits) override {
    const StageScope scope(d_.ctx, "sampling");
    if (drafts_.size() > 1 && logits.dim(0) == 1) logits = repeat(d_.ctx, logits, drafts_.size());
    std::size_t next = 0;
    for (Draft& draft : drafts_) {
      if (draft.ended) continue;
      if (!extend(d_, draft, row(logits, next++), &draft == &drafts_.front())) heard_ = false;
    }
  }

  void next(Next& next) override {
    next.ids.clear();
    next.caches.clear();
    for (Draft& draft : drafts_) {
      if (draft.ended || !heard_) continue;
      next.ids.push_back(draft.out.ids.back());
      next.caches.push_back(&draft.cache);
    }
  }

  void stop() override {}  // what has not ended is taken for cancelled

  std::vector<Generated> finish() override {
    std::vector<Generated> results;
    for (Draft& draft : drafts_) {
      const std::string rest = draft.stream.finish();
      const bool shown = &draft == &drafts_.front() && heard_ && d_.hooks.on_token;
      if (shown && !rest.empty()) d_.hooks.on_token(-1, rest);
      draft.out.text = draft.stream.text();
      const auto chosen = draft.out.ids.size() + (draft.ended == StopReason::end_of_text ? 1 : 0);
      if (chosen > 0)
        draft.out.average_log_probability = draft.log_probability / static_cast<double>(chosen);
      draft.out.stop_reason = draft.ended.value_or(StopReason::cancelled);
      results.push_back(std::move(draft.out));
    }
    return results;
  }

 private:
  /// The logits [1, V] for each of `count` drafts.
  static Tensor repeat(Context& ctx, const Tensor& logits, std::size_t count) {
    Tensor all = ctx.empty({static_cast<std::int64_t>(count), logits.dim(1)});
    float* to = all.data();
    for (std::size_t i = 0; i < count; ++i) to = std::copy_n(logits.data(), logits.numel(), to);
    return all;
  }

  static constexpr std::int64_t kLikelyTokens = 1024;
  const Decoding& d_;
  std::vector<Draft> drafts_;
  bool heard_ = true;  // whether on_token wants more
};

}  // namespace

std::unique_ptr<Search> new_sampling(const Decoding& decoding, KvCache cache) {
  return std::make_unique<Sampling>(decoding, std::move(cache));
}

}  // namespace tessera::text
