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
  KvCache cache;                         // of the prompt and all ids, once the last has been run
};

/// A beam with one more token.
struct Choice {
  std::size_t beam;
  std::int32_t id;
  float score;
  double rank_by;  // the score; when sampling, with noise
  float log_probability;
  double chosen;
  std::size_t place;  // among equals, the first counts as the best
};

/// What a beam may go on with.
struct Row {
  std::vector<float> raw;  // log-probabilities of the model, where asked for
  Warped warped;           // what is left of those that are processed, and
  double total = 0;        // the logarithm of the sum of their exponentials, where asked for
};

/// Step after step works in the same lists: once they are as long as they get, none takes memory.
class BeamSearch : public Search {
 public:
  BeamSearch(const Decoding& decoding, KvCache cache);
  void take(Tensor& logits) override;
  void next(Next& next) override;
  void stop() override;
  std::vector<Generated> finish() override;

 private:
  void fill_rows(Tensor& logits);
  void add_choices(std::size_t beam, std::span<const float> processed);
  void find_best_choices(Tensor& logits);
  void grow();
  std::optional<StopReason> end_of(const Beam& beam, std::int32_t id) const;
  void extend(const Beam& parent, const Choice& choice, Beam& child) const;
  void end(const Beam& beam, StopReason reason);
  Generated room_for_result();
  void go_on();
  void hand_cache_on(std::size_t parent, Beam& child);
  Beam new_beam() const;
  bool done() const;

  const Decoding& d_;
  const std::size_t width_;       // num_beams
  const std::size_t end_tokens_;  // stop tokens, at least 1
  const std::int64_t prompt_;     // its length
  SamplingOptions filter_;        // what is left of a row's candidates
  Random random_;
  std::vector<Beam> beams_;          // best first
  std::vector<Generated> finished_;  // best first, at most width_
  // Scratch:
  std::vector<Row> rows_;
  std::vector<Choice> choices_, going_on_;
  std::vector<std::size_t> children_, childless_;  // how many of each beam; which have none
  std::vector<Beam> next_;
  Beam ended_;
  std::vector<Generated> unused_;
};

/// How many ids there is room for from the start.
std::size_t likely_tokens(const Decoding& d) {
  constexpr std::int64_t kMost = 1024;
  return static_cast<std::size_t>(std::min(d.options.max_new_tokens, kMost)) + 1;
}

BeamSearch::BeamSearch(const Decoding& decoding, KvCache cache)
    : d_(decoding),
      width_(static_cast<std::size_t>(decoding.options.num_beams)),
      end_tokens_(std::max<std::size_t>(1, decoding.options.stop_tokens.size())),
      prompt_(cache.length()),
      random_(decoding.options.seed),
      ended_(new_beam()),
      unused_(width_) {
  if (d_.options.sampling()) {
    filter_ = d_.options;
  } else {
    filter_.top_k = static_cast<std::int64_t>((1 + end_tokens_) * width_);
  }
  beams_.push_back(new_beam());
  beams_.front().cache = std::move(cache);
  finished_.reserve(width_);
  going_on_.reserve((1 + end_tokens_) * width_);
  childless_.reserve(width_);
  for (Generated& result : unused_) result.ids.reserve(likely_tokens(d_));
}

Beam BeamSearch::new_beam() const {
  Beam beam;
  beam.ids.reserve(likely_tokens(d_));
  if (d_.options.log_probabilities) beam.log_probabilities.reserve(likely_tokens(d_));
  return beam;
}

void BeamSearch::take(Tensor& logits) {
  find_best_choices(logits);
  grow();
}

/// What every beam may go on with, of its row of logits, which become log-probabilities. The rows'
/// work is shared among the threads; whoever changes logits from outside is called from this one.
void BeamSearch::fill_rows(Tensor& logits) {
  const auto count = static_cast<std::int64_t>(beams_.size());
  rows_.resize(beams_.size());
  const bool from_outside = static_cast<bool>(d_.hooks.process_logits);
  const auto process = [&](std::size_t b) { d_.process(beams_[b].ids, row(logits, b)); };
  const auto filter = [&](std::size_t b) {
    const std::span<const float> own = row(logits, b);
    warp_logits(filter_, own, static_cast<std::int64_t>(1 + end_tokens_), rows_[b].warped);
    if (d_.options.average_log_probability) rows_[b].total = log_sum_exp(own);
  };
  d_.ctx.parallel_for(count, [&](std::int64_t i) {
    const auto b = static_cast<std::size_t>(i);
    const std::span<float> own = row(logits, b);
    const auto total = static_cast<float>(log_sum_exp(own));
    for (float& x : own) x -= total;
    if (d_.options.log_probabilities) rows_[b].raw.assign(own.begin(), own.end());
    if (from_outside) return;
    process(b);
    filter(b);
  });
  if (!from_outside) return;
  for (std::size_t b = 0; b < beams_.size(); ++b) process(b);
  d_.ctx.parallel_for(count, [&](std::int64_t b) { filter(static_cast<std::size_t>(b)); });
}

void BeamSearch::add_choices(std::size_t beam, std::span<const float> processed) {
  const Row& own = rows_[beam];
  for (const Candidate& c : own.warped.candidates) {
    Choice choice{beam, c.id, c.logit + beams_[beam].score, 0, 0, 0, choices_.size()};
    choice.rank_by = static_cast<double>(choice.score);
    // Gumbel's noise: the order is that of drawing from softmax(scores) without putting back.
    if (d_.options.sampling()) choice.rank_by -= std::log(-std::log1p(-random_.uniform()));
    const auto id = static_cast<std::size_t>(c.id);
    if (!own.raw.empty()) choice.log_probability = own.raw[id];
    if (d_.options.average_log_probability)
      choice.chosen = static_cast<double>(processed[id]) - own.total;
    choices_.push_back(choice);
  }
}

/// As many over all beams that enough are left even if every stop token comes up in every beam.
void BeamSearch::find_best_choices(Tensor& logits) {
  const StageScope scope(d_.ctx, "sampling");
  fill_rows(logits);
  choices_.clear();
  for (std::size_t b = 0; b < beams_.size(); ++b) add_choices(b, row(logits, b));
  const std::size_t count = std::min(choices_.size(), (1 + end_tokens_) * width_);
  const auto end = choices_.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(choices_.begin(), end, choices_.end(), [](const Choice& a, const Choice& b) {
    return a.rank_by != b.rank_by ? a.rank_by > b.rank_by : a.place < b.place;
  });
  choices_.erase(end, choices_.end());
}

/// Why the beam ends with this token, if it does.
std::optional<StopReason> BeamSearch::end_of(const Beam& beam, std::int32_t id) const {
  if (d_.is_stop_token(id)) return StopReason::end_of_text;
  if (!d_.options.stop_strings.empty()) {
    TextStream stream(d_);
    for (const std::int32_t before : beam.ids) stream.push(before);
    stream.push(id);
    if (stream.stopped()) return StopReason::stop_string;
  }
  if (d_.is_full(beam.ids.size() + 1)) return d_.at_limit;
  return std::nullopt;
}

/// The beam with one more token, but for the cache.
void BeamSearch::extend(const Beam& parent, const Choice& choice, Beam& child) const {
  child.ids.assign(parent.ids.begin(), parent.ids.end());
  child.ids.push_back(choice.id);
  child.log_probabilities.assign(parent.log_probabilities.begin(), parent.log_probabilities.end());
  if (d_.options.log_probabilities) child.log_probabilities.push_back(choice.log_probability);
  child.score = choice.score;
  child.chosen = parent.chosen + choice.chosen;
}

/// A place for one more result: that of the worst where there are enough.
Generated BeamSearch::room_for_result() {
  std::vector<Generated>& from = finished_.size() < width_ ? unused_ : finished_;
  Generated room = std::move(from.back());
  from.pop_back();
  return room;
}

void BeamSearch::end(const Beam& beam, StopReason reason) {
  const double length = static_cast<double>(beam.ids.size());
  const auto score = static_cast<double>(
      beam.score / static_cast<float>(std::pow(length, d_.options.length_penalty)));
  const auto rank =
      std::ranges::find_if(finished_, [&](const Generated& o) { return o.score < score; }) -
      finished_.begin();
  if (static_cast<std::size_t>(rank) == width_) return;
  Generated out = room_for_result();
  out.score = score;
  out.average_log_probability = beam.chosen / length;
  out.ids.assign(beam.ids.begin(), beam.ids.end());
  out.log_probabilities.assign(beam.log_probabilities.begin(), beam.log_probabilities.end());
  if (reason == StopReason::end_of_text) {
    out.ids.pop_back();
    if (!out.log_probabilities.empty()) out.log_probabilities.pop_back();
  }
  out.stop_reason = reason;
  finished_.insert(finished_.begin() + rank, std::move(out));
}

void BeamSearch::grow() {
  const StageScope scope(d_.ctx, "beams");
  going_on_.clear();
  for (std::size_t rank = 0; rank < choices_.size(); ++rank) {
    Choice& choice = choices_[rank];
    const Beam& parent = beams_[choice.beam];
    const std::optional<StopReason> reason = end_of(parent, choice.id);
    if (!reason) {
      choice.place = rank;
      going_on_.push_back(choice);
    } else if (rank < width_) {  // the others only stand by
      extend(parent, choice, ended_);
      end(ended_, *reason);
    }
  }
  std::ranges::sort(going_on_, [](const Choice& a, const Choice& b) {
    return a.score != b.score ? a.score > b.score : a.place < b.place;
  });
  if (going_on_.size() > width_) going_on_.resize(width_);
  go_on();
}

void BeamSearch::go_on() {
  children_.assign(beams_.size(), 0);
  for (const Choice& choice : going_on_) ++children_[choice.beam];
  childless_.clear();
  for (std::size_t b = 0; b < beams_.size(); ++b)
    if (children_[b] == 0) childless_.push_back(b);
  while (next_.size() < going_on_.size()) next_.push_back(new_beam());
  next_.resize(going_on_.size());
  for (std::size_t i = 0; i < going_on_.size(); ++i) {
    const Choice& choice = going_on_[i];
    extend(beams_[choice.beam], choice, next_[i]);
    hand_cache_on(choice.beam, next_[i]);
  }
  std::swap(beams_, next_);
}

/// The last child of a beam takes its cache over, the others that of a beam without children, from
/// which it differs only since the two parted.
void BeamSearch::hand_cache_on(std::size_t parent, Beam& child) {
  Beam& from = beams_[parent];
  if (--children_[parent] == 0) {
    child.cache = std::move(from.cache);
  } else if (childless_.empty()) {
    child.cache = from.cache.clone();
  } else {
    Beam& left = beams_[childless_.back()];
    childless_.pop_back();
    const auto alike = std::ranges::mismatch(left.ids, from.ids).in1 - left.ids.begin();
    child.cache = std::move(left.cache);
    child.cache.become(from.cache, prompt_ + alike);
  }
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
  for (const Beam& beam : beams_) end(beam, StopReason::cancelled);
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
