#include "text/score.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "text/sampler.h"

namespace tessera::text {
namespace {

/// Rows whose logits are held at a time.
constexpr std::int64_t kRows = 64;

/// One window: appends the log-probability of each token but the first.
void score_window(Context& ctx, const LanguageModel& model, std::span<const std::int32_t> ids,
                  std::vector<float>& out) {
  KvCache cache = model.new_cache();
  const auto count = static_cast<std::int64_t>(ids.size()) - 1;
  const Sequence sequence{&cache, count};
  const Tensor rows = model.embed(ctx, ids.first(static_cast<std::size_t>(count)));
  const Tensor hidden = model.forward(ctx, rows, std::span(&sequence, 1));
  for (std::int64_t begin = 0; begin < count; begin += kRows) {
    const std::int64_t end = std::min(count, begin + kRows);
    const Tensor logits = model.logits(ctx, hidden.slice(begin, end));
    for (std::int64_t i = begin; i < end; ++i) {
      const float* row = logits.data() + (i - begin) * logits.dim(1);
      const double total = log_sum_exp({row, static_cast<std::size_t>(logits.dim(1))});
      const std::int32_t next = ids[static_cast<std::size_t>(i + 1)];
      out.push_back(static_cast<float>(static_cast<double>(row[next]) - total));
    }
  }
}

}  // namespace

std::vector<float> log_probabilities(Context& ctx, const LanguageModel& model,
                                     std::span<const std::int32_t> ids, std::int64_t context) {
  if (model.has_cross_attention()) {
    throw UnsupportedError(
        "this decoder writes about images or sound and can't score a text alone");
  }
  if (ids.size() < 2)
    throw ArgumentError(concat("a text of ", ids.size(), " tokens has none to score; give two"));
  if (context < 0 || context == 1 || context > model.max_positions()) {
    throw ArgumentError(concat("a context of ", context, " tokens; expected 2 to ",
                               model.max_positions(), ", the model's"));
  }
  const auto step = static_cast<std::size_t>(context ? context : model.max_positions());
  std::vector<float> out;
  for (std::size_t at = 0; at + 1 < ids.size(); at += step)
    score_window(ctx, model, ids.subspan(at, std::min(step + 1, ids.size() - at)), out);
  return out;
}

Tensor logits_after(Context& ctx, const LanguageModel& model, std::span<const std::int32_t> ids,
                    KvCache& cache) {
  const std::int64_t before = cache.length();
  const Sequence sequence{&cache, std::ssize(ids)};
  const Tensor hidden =
      model.forward(ctx, model.embed(ctx, ids), std::span(&sequence, 1), Outputs::last_rows);
  cache.truncate(before);
  return model.logits(ctx, hidden);
}

double probability_of(const Tensor& logits, std::int32_t token) {
  if (token < 0 || token >= logits.numel()) return 0;
  const std::span<const float> all(logits.data(), static_cast<std::size_t>(logits.numel()));
  const double own = all[static_cast<std::size_t>(token)];
  return std::exp(own - log_sum_exp(all));
}

double perplexity(std::span<const float> log_probabilities) {
  double sum = 0;
  for (const float p : log_probabilities) sum += static_cast<double>(p);
  return std::exp(-sum / static_cast<double>(log_probabilities.size()));
}

}  // namespace tessera::text
