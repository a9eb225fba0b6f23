// Beam search and beam sampling, step by step what HF's GenerationMixin._beam_search does for one
// prompt. Scores are f32 as there.
#include <algorithm>
#include <cmath>
#include <utility>

#include "core/profile.h"
#include "text/decoding.h"

namespace tessera::text {
namespace {

/// A sequence that goes on.
struct Beam {
  std::vector<std::int32_t> ids;
  std::vector<float> log_probabilities;  // of the model, where asked for
  float score = 0;                       // sum of log-probabilities as processed
  double chosen = 0;                     // the same, each log_softmax'ed again; where asked for
  KvCache cache;
};

/// A beam with one more token.
struct Choice {
  std::size_t beam;
  std::int32_t id;
  float score;
  double rank_by;  // the score; when sampling, with noise
  float log_probability;
  double chosen;
};

class BeamSearch : public Search {
 public:
  BeamSearch(const Decoding& decoding, KvCache cache);
  void take(Tensor& logits) override { grow(best_choices(logits)); }
  void next(Next& next) override;
  void stop() override;
  std::vector<Generated> finish() override;

 private:
  std::vector<std::vector<Choice>> choices_of_beams(Tensor& logits);
  std::vector<Choice> choices_of(std::size_t beam, const std::vector<Candidate>& candidates,
                                 const std::vector<float>& raw, std::span<const float> processed);
  std::vector<Choice> best_choices(Tensor& logits);
  void grow(const std::vector<Choice>& choices);
  std::optional<StopReason> end_of(const std::vector<std::int32_t>& ids) const;
  Beam grown(const Choice& choice) const;
  void end(Beam beam, StopReason reason);
  void go_on_with(const std::vector<Choice>& choices);
  bool done() const;

  const Decoding& d_;
  const std::size_t width_;       // num_beams
  const std::size_t end_tokens_;  // stop tokens, at least 1
  SamplingOptions filter_;        // what is left of a row's candidates
  Random random_;
  std::vector<Beam> beams_;          // best first
  std::vector<Generated> finished_;  // best first, at most width_
};

BeamSearch::BeamSearch(const Decoding& decoding, KvCache cache)
    : d_(decoding),
      width_(static_cast<std::size_t>(decoding.options.num_beams)),
      end_tokens_(std::max<std::size_t>(1, decoding.options.stop_tokens.size())),
      random_(decoding.options.seed) {
  if (d_.options.sampling()) {
    filter_ = d_.options;
  } else {
    filter_.top_k = static_cast<std::int64_t>((1 + end_tokens_) * width_);
  }
  beams_.push_back({{}, {}, 0, 0, std::move(cache)});
}

/// What every beam may go on with, of its row of log-probabilities. The rows' own work is shared
/// among the threads; whoever changes logits from outside is called from this one.
std::vector<std::vector<Choice>> BeamSearch::choices_of_beams(Tensor& logits) {
  const auto count = static_cast<std::int64_t>(beams_.size());
  std::vector<std::vector<float>> raw(beams_.size());
  std::vector<std::vector<Candidate>> candidates(beams_.size());
  d_.ctx.parallel_for(count, [&](std::int64_t b) {
    const std::span<float> own = row(logits, static_cast<std::size_t>(b));
    const auto total = static_cast<float>(log_sum_exp(own));
    for (float& x : own) x -= total;
  });
  for (std::size_t b = 0; b < beams_.size(); ++b) {
    const std::span<float> own = row(logits, b);
    if (d_.options.log_probabilities) raw[b].assign(own.begin(), own.end());
    d_.process(beams_[b].ids, own);
  }
  const auto at_least = static_cast<std::int64_t>(1 + end_tokens_);
  d_.ctx.parallel_for(count, [&](std::int64_t b) {
    const auto beam = static_cast<std::size_t>(b);
    candidates[beam] = warp_logits(filter_, row(logits, beam), at_least);
  });
  std::vector<std::vector<Choice>> choices;
  for (std::size_t b = 0; b < beams_.size(); ++b)
    choices.push_back(choices_of(b, candidates[b], raw[b], row(logits, b)));
  return choices;
}

std::vector<Choice> BeamSearch::choices_of(std::size_t beam,
                                           const std::vector<Candidate>& candidates,
                                           const std::vector<float>& raw,
                                           std::span<const float> processed) {
  std::vector<Choice> choices;
  const bool average = d_.options.average_log_probability;
  const double total = average ? log_sum_exp(processed) : 0;
  for (const Candidate& c : candidates) {
    Choice choice{beam, c.id, c.logit + beams_[beam].score, 0, 0, 0};
    choice.rank_by = static_cast<double>(choice.score);
    // Gumbel's noise: the order is that of drawing from softmax(scores) without putting back.
    if (d_.options.sampling()) choice.rank_by -= std::log(-std::log1p(-random_.uniform()));
    const auto id = static_cast<std::size_t>(c.id);
    if (!raw.empty()) choice.log_probability = raw[id];
    if (average) choice.chosen = static_cast<double>(processed[id]) - total;
    choices.push_back(choice);
  }
  return choices;
}

/// As many over all beams that enough are left even if every stop token comes up in every beam.
std::vector<Choice> BeamSearch::best_choices(Tensor& logits) {
  const StageScope scope(d_.ctx, "sampling");
  std::vector<Choice> all;
  for (const std::vector<Choice>& own : choices_of_beams(logits))
    all.insert(all.end(), own.begin(), own.end());
  std::ranges::stable_sort(all, std::greater<>(), &Choice::rank_by);
  all.resize(std::min(all.size(), (1 + end_tokens_) * width_));
  return all;
}

std::optional<StopReason> BeamSearch::end_of(const std::vector<std::int32_t>& ids) const {
  if (d_.is_stop_token(ids.back())) return StopReason::end_of_text;
  if (!d_.options.stop_strings.empty()) {
    TextStream stream(d_);
    for (const std::int32_t id : ids) stream.push(id);
    if (stream.stopped()) return StopReason::stop_string;
  }
  if (d_.is_full(ids.size())) return d_.at_limit;
  return std::nullopt;
}

/// The beam with one more token, and no cache yet.
Beam BeamSearch::grown(const Choice& choice) const {
  const Beam& parent = beams_[choice.beam];
  Beam child{parent.ids, parent.log_probabilities, choice.score, parent.chosen + choice.chosen, {}};
  child.ids.push_back(choice.id);
  if (d_.options.log_probabilities) child.log_probabilities.push_back(choice.log_probability);
  return child;
}

void BeamSearch::end(Beam beam, StopReason reason) {
  const double length = static_cast<double>(beam.ids.size());
  Generated out;
  out.score = static_cast<double>(beam.score /
                                  static_cast<float>(std::pow(length, d_.options.length_penalty)));
  out.average_log_probability = beam.chosen / length;
  if (reason == StopReason::end_of_text) {
    beam.ids.pop_back();
    if (!beam.log_probabilities.empty()) beam.log_probabilities.pop_back();
  }
  out.ids = std::move(beam.ids);
  out.log_probabilities = std::move(beam.log_probabilities);
  out.stop_reason = reason;
  const auto worse = std::ranges::find_if(
      finished_, [&](const Generated& other) { return other.score < out.score; });
  finished_.insert(worse, std::move(out));
  if (finished_.size() > width_) finished_.pop_back();
}

void BeamSearch::grow(const std::vector<Choice>& choices) {
  const StageScope scope(d_.ctx, "beams");
  std::vector<Choice> continuing;
  for (std::size_t rank = 0; rank < choices.size(); ++rank) {
    const Choice& choice = choices[rank];
    Beam child = grown(choice);
    const std::optional<StopReason> reason = end_of(child.ids);
    if (!reason) {
      continuing.push_back(choice);
    } else if (rank < width_) {  // the others only stand by
      end(std::move(child), *reason);
    }
  }
  std::ranges::stable_sort(continuing, std::greater<>(), &Choice::score);
  continuing.resize(std::min(continuing.size(), width_));
  go_on_with(continuing);
}

/// The last child of a beam takes its cache over, the others get copies.
void BeamSearch::go_on_with(const std::vector<Choice>& choices) {
  std::vector<std::size_t> children(beams_.size());
  for (const Choice& choice : choices) ++children[choice.beam];
  std::vector<Beam> next;
  for (const Choice& choice : choices) {
    Beam& parent = beams_[choice.beam];
    Beam child = grown(choice);
    child.cache = --children[choice.beam] > 0 ? parent.cache.clone() : std::move(parent.cache);
    next.push_back(std::move(child));
  }
  beams_ = std::move(next);
}

/// Whether no beam can better what is finished, as HF estimates it.
bool BeamSearch::done() const {
  if (beams_.empty()) return true;
  if (finished_.size() < width_) return false;
  using EarlyStopping = SamplingOptions::EarlyStopping;
  const SamplingOptions& o = d_.options;
  if (o.early_stopping == EarlyStopping::yes) return true;
  const bool longest = o.early_stopping == EarlyStopping::never && o.length_penalty > 0;
  const double length = longest ? static_cast<double>(o.max_new_tokens)
                                : static_cast<double>(beams_.front().ids.size());
  const float best = beams_.front().score / static_cast<float>(std::pow(length, o.length_penalty));
  return !(static_cast<double>(best) > finished_.back().score);
}

void BeamSearch::next(Next& next) {
  next.ids.clear();
  next.caches.clear();
  if (done()) return;
  for (Beam& beam : beams_) {
    next.ids.push_back(beam.ids.back());
    next.caches.push_back(&beam.cache);
  }
}

void BeamSearch::stop() {
  for (Beam& beam : beams_) end(std::move(beam), StopReason::cancelled);
  beams_.clear();
}

/// Fills in the texts, and shows the best one.
std::vector<Generated> BeamSearch::finish() {
  if (finished_.empty()) throw_nothing_left();
  finished_.resize(
      std::min(finished_.size(), static_cast<std::size_t>(d_.options.num_return_sequences)));
  for (Generated& result : finished_) {
    bool shown = &result == &finished_.front() && d_.hooks.on_token;
    TextStream stream(d_);
    for (const std::int32_t id : result.ids) {
      const std::string piece = stream.push(id);
      shown = shown && d_.hooks.on_token(id, piece);
    }
    const std::string rest = stream.finish();
    if (shown && !rest.empty()) d_.hooks.on_token(-1, rest);
    result.text = stream.text();
  }
  return std::move(finished_);
}

}  // namespace

std::unique_ptr<Search> new_beam_search(const Decoding& decoding, KvCache cache) {
  return std::make_unique<BeamSearch>(decoding, std::move(cache));
}

}  // namespace tessera::text
