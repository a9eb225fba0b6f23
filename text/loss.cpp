#include "text/loss.h"

#include "core/loss.h"

namespace tessera::text {

Tensor next_token_loss(Context& ctx, const LanguageModel& model, const TokenBatch& batch,
                       float smoothing) {
  std::vector<KvCache> caches(batch.lengths.size(), model.new_cache());
  std::vector<Sequence> sequences;
  for (std::size_t i = 0; i < caches.size(); ++i)
    sequences.push_back({&caches[i], batch.lengths[i]});
  const Tensor hidden = model.forward(ctx, model.embed(ctx, batch.ids), sequences);
  return cross_entropy(ctx, model.head(), hidden, batch.targets, smoothing).loss;
}

}  // namespace tessera::text
