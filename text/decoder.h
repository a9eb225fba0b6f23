#pragma once
#include <memory>
#include <span>
#include <vector>

#include "core/layers.h"
#include "core/tape.h"
#include "text/language_model.h"

// What decoders of all families share: the output layer, and attention of the rows of several
// sequences, each over its own cache.
namespace tessera::text {

/// The output layer without bias: `lm_head`, or the token embedding again where they are tied.
Linear read_head(const Weights& weights, const Embedding& tokens, bool tied);

/// How blocks with this attention, whose keys and values `qkv` gives, keep these.
KvCache::Types cache_types(CacheNumbers numbers, const AttentionOptions& options,
                           const Linear& qkv);

/// An empty cache for these blocks.
template <class Block>
KvCache cache_for(const std::vector<Block>& blocks, CacheNumbers numbers) {
  if (blocks.empty()) return KvCache(0);
  const Block& block = blocks.front();
  return {std::ssize(blocks), cache_types(numbers, block.options, block.qkv)};
}

/// Throws ShapeError unless the sequences' rows add up to `rows`, ArgumentError where one has none
/// or would outgrow max_positions.
void check_sequences(const Tensor& rows, std::span<const Sequence> sequences,
                     std::int64_t max_positions);

/// The place of every row in its sequence. To be called before the caches grow.
std::pmr::vector<std::int64_t> positions_of(Context& ctx, std::span<const Sequence> sequences);

/// x [N, D] + table rows at each sequence's positions. To be called before the caches grow.
Tensor add_positions(Context& ctx, const Tensor& x, const Tensor& table,
                     std::span<const Sequence> sequences);

/// Whose rows a block is given, and which of them are wanted of it: W of N.
struct BlockRows {
  std::span<const Sequence> sequences;
  Outputs outputs = Outputs::every_row;
  /// How many of a sequence, its last ones.
  std::int64_t wanted(const Sequence& s) const {
    return outputs == Outputs::last_rows ? 1 : s.rows;
  }
};

/// x [N, D] -> [W, D], those that are wanted; or x, if it has no others.
Tensor wanted_rows(Context& ctx, const Tensor& x, const BlockRows& rows);

/// Appends k, v [N, kv_heads*d] to every sequence's cache of this layer; what is wanted of q [N,
/// heads*d] attends causally -> [W, heads*d].
Tensor self_attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                      std::int64_t layer, const BlockRows& rows, AttentionOptions options);

/// Sequences with caches of their own (that share their numbers): for what runs again when the
/// given ones may be gone.
class KeptSequences {
 public:
  explicit KeptSequences(std::span<const Sequence> sequences);
  KeptSequences(const KeptSequences&) = delete;
  KeptSequences& operator=(const KeptSequences&) = delete;
  std::span<const Sequence> all() const { return sequences_; }

 private:
  std::vector<KvCache> caches_;
  std::vector<Sequence> sequences_;
};

/// x [N, D] through all blocks, block(ctx, x, rows, more...): each a segment that a tape may run
/// again, so `more` is copied. Of the last block only the outputs are wanted, unless somebody looks
/// at what all rows become.
template <class Block, class... More>
Tensor run_blocks(Context& ctx, const std::vector<Block>& blocks, Tensor x,
                  std::span<const Sequence> sequences, Outputs outputs, const More&... more) {
  const bool watched = ctx.tape || ctx.observer || ctx.input_observer;
  std::shared_ptr<const KeptSequences> kept;
  if (ctx.tape && ctx.tape->keeps_inputs_only) {
    kept = std::make_shared<KeptSequences>(sequences);
    sequences = kept->all();
  }
  for (const Block& block : blocks) {
    ctx.observe("hidden", block.layer, x);
    const bool last = &block == &blocks.back();
    const BlockRows rows{sequences, last && !watched ? outputs : Outputs::every_row};
    if (!kept) {  // nothing to be copied, and no memory taken: decoding comes here for each token
      x = block(ctx, x, rows, more...);
      continue;
    }
    x = checkpointed(ctx, x, [&block, kept, rows, more...](Context& c, const Tensor& in) {
      return block(c, in, rows, more...);
    });
  }
  ctx.observe("hidden", std::ssize(blocks), x);
  return wanted_rows(ctx, x, {sequences, outputs});
}

/// What a decoder with cross-attention attends to in this layer. Throws ArgumentError where the
/// cache has seen none.
const KeyValues& memory_of(KvCache& cache, std::int64_t layer);

/// q [W, heads*d], those that are wanted, attends to every sequence's memory -> same. Throws
/// ArgumentError where a cache has none.
Tensor cross_attention(Context& ctx, const Tensor& q, std::int64_t layer, const BlockRows& rows,
                       const AttentionOptions& options);

}  // namespace tessera::text
