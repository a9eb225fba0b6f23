#include "text/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "text/decoding.h"

namespace tessera::text {
namespace {

using Ids = std::span<const std::int32_t>;
constexpr float kForbidden = -std::numeric_limits<float>::infinity();

/// Prompt and output as one sequence.
class History {
 public:
  History(Ids prompt, Ids generated) : prompt_(prompt), generated_(generated) {}
  std::size_t size() const { return prompt_.size() + generated_.size(); }
  std::int32_t operator[](std::size_t i) const {
    return i < prompt_.size() ? prompt_[i] : generated_[i - prompt_.size()];
  }
  /// Whether `ids` stands at [at, at + ids.size()).
  bool holds(std::size_t at, Ids ids) const {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if ((*this)[at + i] != ids[i]) return false;
    }
    return true;
  }

 private:
  Ids prompt_, generated_;
};

void forbid(std::span<float> logits, std::int32_t id) {
  if (id >= 0 && static_cast<std::size_t>(id) < logits.size()) {
    logits[static_cast<std::size_t>(id)] = kForbidden;
  }
}

void forbid(std::span<float> logits, Ids ids) {
  for (const std::int32_t id : ids) forbid(logits, id);
}

void force(std::span<float> logits, Ids ids) {
  std::ranges::fill(logits, kForbidden);
  for (const std::int32_t id : ids) logits[static_cast<std::size_t>(id)] = 0;
}

/// The first of the tokens that penalties see.
std::size_t window_begin(const SamplingOptions& options, std::size_t length) {
  const auto last = static_cast<std::size_t>(options.repeat_last_n);
  return last > 0 && last < length ? length - last : 0;
}

/// Calls visit(logit, count) once for each id of the vocabulary in history[begin..].
template <class Sequence, class Visit>
void for_each_token(const Sequence& history, std::size_t begin, std::span<float> logits,
                    const Visit& visit) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = begin; i < history.size(); ++i) ids.push_back(history[i]);
  std::ranges::sort(ids);
  for (std::size_t i = 0; i < ids.size();) {
    const std::size_t first = i;
    while (i < ids.size() && ids[i] == ids[first]) ++i;
    // Ids outside stand for images and sounds, for example.
    if (ids[first] < 0 || static_cast<std::size_t>(ids[first]) >= logits.size()) continue;
    visit(logits[static_cast<std::size_t>(ids[first])], i - first);
  }
}

void penalise(const SamplingOptions& options, const History& history, Ids generated,
              std::span<float> logits) {
  if (options.repetition_penalty != 1.0) {
    const auto penalty = static_cast<float>(options.repetition_penalty);
    for_each_token(history, window_begin(options, history.size()), logits,
                   [&](float& x, std::size_t) { x = x < 0 ? x * penalty : x / penalty; });
  }
  if (options.frequency_penalty != 0 || options.presence_penalty != 0) {
    for_each_token(generated, window_begin(options, generated.size()), logits,
                   [&](float& x, std::size_t count) {
                     x -=
                         static_cast<float>(static_cast<double>(count) * options.frequency_penalty +
                                            options.presence_penalty);
                   });
  }
}

/// Forbids whatever would complete n tokens that are already there.
void forbid_ngrams(std::size_t n, const History& history, std::span<float> logits) {
  if (n == 0 || history.size() < n) return;
  std::vector<std::int32_t> last;  // the n - 1 last tokens
  for (std::size_t i = history.size() + 1 - n; i < history.size(); ++i) last.push_back(history[i]);
  for (std::size_t i = 0; i + n <= history.size(); ++i) {
    if (history.holds(i, last)) forbid(logits, history[i + n - 1]);
  }
}

void forbid_words(const SamplingOptions& options, const History& history, std::span<float> logits) {
  for (const std::vector<std::int32_t>& word : options.bad_words) {
    const Ids before(word.data(), word.size() - 1);
    if (before.size() > history.size()) continue;
    if (!history.holds(history.size() - before.size(), before)) continue;
    // As in HF: a stop token alone is no word.
    if (before.empty() && std::ranges::count(options.stop_tokens, word.back()) > 0) continue;
    forbid(logits, word.back());
  }
}

bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

float largest_of(std::span<const float> x) {
  return kernels::vector_kernels().largest(x.data(), static_cast<std::int64_t>(x.size()));
}

/// Numbers in stretches, whose largest are known: few of them have to be looked through.
class Stretches {
 public:
  Stretches(std::span<const float> x, std::vector<float>& tops) : x_(x), tops_(tops) {
    tops_.clear();
    for (std::size_t at = 0; at < x.size(); at += kLength) tops_.push_back(largest_of(from(at)));
  }
  /// Calls visit(i) in order for each number that `reaches` says yes to, which it then must to all
  /// larger ones as well.
  template <class Reaches, class Visit>
  void for_each(const Reaches& reaches, const Visit& visit) const {
    for (std::size_t s = 0; s < tops_.size(); ++s) {
      if (!reaches(tops_[s])) continue;
      const std::size_t at = s * kLength;
      for (std::size_t i = at; i < at + from(at).size(); ++i)
        if (reaches(x_[i])) visit(i);
    }
  }
  /// The k-th largest number: of the stretches' largest, it is not above that. `some` is scratch.
  float kth_largest(std::size_t k, std::vector<float>& some) const {
    const auto kth = [k](std::vector<float>& all) {
      if (k > all.size()) return kForbidden;
      std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(k) - 1, all.end(),
                       std::greater<>());
      return all[k - 1];
    };
    some = tops_;
    const float bound = kth(some);
    some.clear();
    for_each([&](float x) { return x >= bound; }, [&](std::size_t i) { some.push_back(x_[i]); });
    return kth(some);
  }

 private:
  static constexpr std::size_t kLength = 256;
  std::span<const float> from(std::size_t at) const {
    return x_.subspan(at, std::min(kLength, x_.size() - at));
  }
  std::span<const float> x_;
  std::vector<float>& tops_;
};

float largest_logit(std::span<const Candidate> candidates) {
  float largest = kForbidden;
  for (const Candidate& c : candidates) largest = std::max(largest, c.logit);
  return largest;
}

double weight(const Candidate& c, float largest) {
  return static_cast<double>(std::exp(c.logit - largest));
}

/// Keeps the most likely ones until they hold `p` of the probability.
void keep_top_p(std::vector<Candidate>& candidates, double p, std::size_t at_least) {
  const float largest = largest_logit(candidates);
  double total = 0;
  for (const Candidate& c : candidates) total += weight(c, largest);
  // Sorted piece by piece: as a rule few are needed of many.
  const auto begin = candidates.begin();
  std::size_t count = 0, sorted = 0;
  double held = 0;
  while (count < candidates.size() && (held < p * total || count < at_least)) {
    if (count == sorted) {
      sorted = std::min(candidates.size(), std::max<std::size_t>(64, 4 * sorted));
      const auto from = begin + static_cast<std::ptrdiff_t>(count);
      const auto to = begin + static_cast<std::ptrdiff_t>(sorted);
      std::nth_element(from, to, candidates.end(), more_likely);
      std::sort(from, to, more_likely);
    }
    held += weight(candidates[count++], largest);
  }
  candidates.resize(count);
}

/// Keeps those at least `p` times as likely as the most likely one.
void keep_min_p(std::vector<Candidate>& candidates, double p, std::size_t at_least) {
  if (candidates.size() <= at_least) return;
  const auto rest = candidates.begin() + static_cast<std::ptrdiff_t>(at_least);
  std::partial_sort(candidates.begin(), rest, candidates.end(), more_likely);
  const float largest = candidates.front().logit;
  const auto unlikely = [&](const Candidate& c) { return weight(c, largest) < p; };
  candidates.erase(std::remove_if(rest, candidates.end(), unlikely), candidates.end());
}

}  // namespace

void throw_nothing_left() {
  throw ArgumentError(
      "no token is left to choose: all logits are -infinity or not a number; suppress fewer "
      "tokens, or check the weights");
}

void process_logits(const SamplingOptions& options, Ids prompt, Ids generated,
                    std::span<float> logits) {
  const History history(prompt, generated);
  for (const auto& [id, bias] : options.logit_bias) {
    logits[static_cast<std::size_t>(id)] += static_cast<float>(bias);
  }
  penalise(options, history, generated, logits);
  forbid_ngrams(static_cast<std::size_t>(options.no_repeat_ngram_size), history, logits);
  forbid_words(options, history, logits);
  const auto length = static_cast<std::int64_t>(generated.size());
  if (length < options.min_new_tokens) forbid(logits, options.stop_tokens);
  if (options.forced_bos_token && history.size() == 1) {
    force(logits, Ids(&*options.forced_bos_token, 1));
  }
  if (!options.forced_eos_tokens.empty() && length + 1 == options.max_new_tokens) {
    force(logits, options.forced_eos_tokens);
  }
  forbid(logits, options.suppress_tokens);
  const std::int64_t begin = options.forced_bos_token && prompt.size() <= 1 ? 1 : 0;
  if (length == begin) forbid(logits, options.begin_suppress_tokens);
}

std::vector<Candidate> warp_logits(const SamplingOptions& options, std::span<const float> logits,
                                   std::int64_t min_tokens_to_keep) {
  Warped warped;
  warp_logits(options, logits, min_tokens_to_keep, warped);
  return std::move(warped.candidates);
}

void warp_logits(const SamplingOptions& options, std::span<const float> logits,
                 std::int64_t min_tokens_to_keep, Warped& warped) {
  const auto temperature = static_cast<float>(options.temperature);
  const auto at_least = static_cast<std::size_t>(min_tokens_to_keep);
  const std::size_t top_k = std::max(static_cast<std::size_t>(options.top_k), at_least);
  const Stretches all(logits, warped.tops);
  float least = kForbidden;  // equals of the k-th stay, as in HF
  if (options.top_k > 0 && top_k < logits.size()) {
    least = all.kth_largest(top_k, warped.some) / temperature;
  }
  std::vector<Candidate>& candidates = warped.candidates;
  candidates.clear();
  all.for_each([&](float x) { return x / temperature >= least && x / temperature > kForbidden; },
               [&](std::size_t i) {
                 candidates.push_back({static_cast<std::int32_t>(i), logits[i] / temperature});
               });
  if (options.top_p < 1.0) keep_top_p(candidates, options.top_p, at_least);
  if (options.min_p > 0.0) keep_min_p(candidates, options.min_p, at_least);
}

std::int32_t argmax(std::span<const float> logits) {
  const float best = largest_of(logits);
  if (best == kForbidden) throw_nothing_left();
  return static_cast<std::int32_t>(std::ranges::find(logits, best) - logits.begin());
}

double log_sum_exp(std::span<const float> x) {
  const float largest = largest_of(x);
  if (largest == kForbidden) return static_cast<double>(kForbidden);
  const double sum =
      kernels::vector_kernels().sum_exp(x.data(), static_cast<std::int64_t>(x.size()), largest);
  return static_cast<double>(largest) + std::log(sum);
}

std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> out;
  if (logits.empty()) return out;
  const float largest = *std::ranges::max_element(logits);
  double total = 0;
  for (const float x : logits) {
    out.push_back(std::exp(static_cast<double>(x) - static_cast<double>(largest)));
    total += out.back();
  }
  for (double& share : out) share /= total;
  return out;
}

std::int32_t draw(std::span<const Candidate> candidates, double u) {
  if (candidates.empty()) throw_nothing_left();
  const float largest = largest_logit(candidates);
  double total = 0;
  for (const Candidate& c : candidates) total += weight(c, largest);
  double rest = u * total;
  for (const Candidate& c : candidates) {
    rest -= weight(c, largest);
    if (rest < 0) return c.id;
  }
  return candidates.back().id;  // rounding
}

}  // namespace tessera::text
