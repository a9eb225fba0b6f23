#include "fusion/retrieval.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/layers.h"

namespace tessera::fusion {
namespace {

constexpr std::int64_t kRowsAtOnce = 64;

/// Calls see(image, scores of all texts) for each image in order, a few at a time.
template <class See>
void for_scores(Context& ctx, const Tensor& images, const Tensor& texts, const See& see) {
  const Linear score(texts, {}, Precision::in_place);
  for (std::int64_t i = 0; i < images.dim(0); i += kRowsAtOnce) {
    const Tensor part = score(ctx, images.slice(i, std::min(i + kRowsAtOnce, images.dim(0))));
    for (std::int64_t j = 0; j < part.dim(0); ++j)
      see(static_cast<std::size_t>(i + j), part[j].data());
  }
}

void check_owners(std::int64_t images, std::int64_t texts, std::span<const std::int64_t> owners) {
  if (std::ssize(owners) != texts)
    throw ArgumentError(concat(owners.size(), " owners for ", texts, " texts"));
  std::vector<bool> has(static_cast<std::size_t>(images));
  for (const std::int64_t owner : owners) {
    if (owner < 0 || owner >= images)
      throw ArgumentError(concat("a text of image ", owner, "; there are ", images));
    has[static_cast<std::size_t>(owner)] = true;
  }
  if (const auto lonely = std::ranges::find(has, false); lonely != has.end())
    throw ArgumentError(concat("image ", lonely - has.begin(), " has no text to be found"));
}

}  // namespace

RetrievalRanks retrieval_ranks(Context& ctx, const Tensor& images, const Tensor& texts,
                               std::span<const std::int64_t> owners) {
  check_owners(images.dim(0), texts.dim(0), owners);
  const std::size_t count = owners.size();
  // First what each text scores with its own image, then how many images score as much: the same
  // products, so that the same numbers are compared.
  std::vector<float> own(count);
  RetrievalRanks ranks;
  for_scores(ctx, images, texts, [&](std::size_t image, const float* scores) {
    float best = -std::numeric_limits<float>::infinity();
    const auto is_own = [&](std::size_t t) { return static_cast<std::size_t>(owners[t]) == image; };
    for (std::size_t t = 0; t < count; ++t) {
      if (is_own(t)) best = std::max(best, own[t] = scores[t]);
    }
    std::int64_t before = 0;
    for (std::size_t t = 0; t < count; ++t) before += !is_own(t) && !(scores[t] < best);
    ranks.image_to_text.push_back(1 + before);
  });
  ranks.text_to_image.assign(count, 0);
  for_scores(ctx, images, texts, [&](std::size_t, const float* scores) {  // itself included
    for (std::size_t t = 0; t < count; ++t) ranks.text_to_image[t] += !(scores[t] < own[t]);
  });
  return ranks;
}

double recall_at(std::span<const std::int64_t> ranks, std::int64_t k) {
  if (ranks.empty()) return 0;
  const auto found = std::ranges::count_if(ranks, [k](std::int64_t r) { return r <= k; });
  return static_cast<double>(found) / static_cast<double>(ranks.size());
}

std::int64_t median_rank(std::vector<std::int64_t> ranks) {
  if (ranks.empty()) return 0;
  std::ranges::sort(ranks);
  const std::size_t n = ranks.size();
  return (ranks[(n - 1) / 2] + ranks[n / 2]) / 2;
}

}  // namespace tessera::fusion
