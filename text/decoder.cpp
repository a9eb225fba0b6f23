#include "text/decoder.h"

#include <algorithm>

#include "core/error.h"

namespace tessera::text {

Linear read_head(const Weights& weights, const Embedding& tokens, bool tied) {
  // A classifier (`score`) has no use for one, and none of its own.
  if (!tied && (weights.has("lm_head.weight") || !weights.has("score.weight"))) {
    return {weights.at("lm_head"), tokens.table.dim(1), tokens.table.dim(0), Linear::Bias::none};
  }
  Linear head = tokens.as_linear();
  weights.release_pages();  // the largest weight, and packed now
  weights.ignore("lm_head.weight");
  return head;
}

KvCache::Types cache_types(CacheNumbers numbers, const AttentionOptions& options,
                           const Linear& qkv) {
  const std::int64_t heads = options.kv_heads ? options.kv_heads : options.heads;
  switch (numbers) {
    case CacheNumbers::f32:
      return {DType::f32, DType::f32, heads};
    case CacheNumbers::bf16:
      return {DType::bf16, DType::bf16, heads};
    case CacheNumbers::int8:
      return {DType::i8, DType::i8, heads};
    case CacheNumbers::automatic:
      break;
  }
  if (!options.rounded) return {DType::f32, DType::f32, heads};
  return {DType::bf16, qkv.in_bytes() ? DType::i8 : DType::bf16, heads};
}

void check_sequences(const Tensor& rows, std::span<const Sequence> sequences,
                     std::int64_t max_positions) {
  std::int64_t total = 0;
  for (const Sequence& s : sequences) {
    if (s.rows < 1) throw ArgumentError("a sequence is given no rows");
    total += s.rows;
    if (s.cache->length() + s.rows > max_positions) {
      throw ArgumentError(concat("a sequence of ", s.cache->length() + s.rows,
                                 " tokens is longer than the decoder's context of ",
                                 max_positions));
    }
  }
  if (rows.rank() != 2 || rows.dim(0) != total) {
    throw ShapeError(concat("the decoder was given rows ", rows.shape().str(), " for sequences of ",
                            total, " rows"));
  }
}

std::pmr::vector<std::int64_t> positions_of(Context& ctx, std::span<const Sequence> sequences) {
  std::pmr::vector<std::int64_t> positions(ctx.lists());
  for (const Sequence& s : sequences) {
    for (std::int64_t i = 0; i < s.rows; ++i) positions.push_back(s.cache->length() + i);
  }
  return positions;
}

Tensor add_positions(Context& ctx, const Tensor& x, const Tensor& table,
                     std::span<const Sequence> sequences) {
  const auto positions = positions_of(ctx, sequences);
  const std::pmr::vector<std::int32_t> rows(positions.begin(), positions.end(), ctx.lists());
  return add(ctx, x, gather_rows(ctx, table, rows));
}

Tensor wanted_rows(Context& ctx, const Tensor& x, const BlockRows& rows) {
  if (rows.outputs == Outputs::every_row || x.dim(0) == std::ssize(rows.sequences)) return x;
  std::pmr::vector<std::int32_t> last(ctx.lists());
  std::int64_t end = 0;
  for (const Sequence& s : rows.sequences) {
    end += s.rows;
    last.push_back(static_cast<std::int32_t>(end - 1));
  }
  return gather_rows(ctx, x, last);
}

namespace {

/// Keys and values that new rows of a sequence see, their own last. With a tape these alone, and
/// the cache stays empty: gradients don't go back through what it copies.
KeyValues seen_by(const Context& ctx, const Sequence& s, std::int64_t layer, const Tensor& k,
                  const Tensor& v) {
  KvCache::Layer& cache = s.cache->layer(layer);
  if (!ctx.tape) return cache.append(k, v);
  if (cache.length() > 0)
    throw ArgumentError("gradients are found for whole sequences: give empty caches");
  return {k, v, {}, k.dim(0), k.dim(1)};
}

}  // namespace

Tensor self_attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                      std::int64_t layer, const BlockRows& rows, AttentionOptions options) {
  options.causal = true;
  const bool all = rows.outputs == Outputs::every_row;
  Tensor out = ctx.empty({all ? q.dim(0) : std::ssize(rows.sequences), q.dim(1)});
  std::pmr::vector<AttentionItem> items(ctx.lists());
  items.reserve(rows.sequences.size());
  std::int64_t at = 0, written = 0;
  for (const Sequence& s : rows.sequences) {
    const std::int64_t end = at + s.rows, wanted = rows.wanted(s);
    items.push_back({q.slice(end - wanted, end),
                     seen_by(ctx, s, layer, k.slice(at, end), v.slice(at, end)),
                     out.slice(written, written + wanted)});
    at = end;
    written += wanted;
  }
  attention(ctx, items, options);
  return out;
}

KeptSequences::KeptSequences(std::span<const Sequence> sequences) {
  for (const Sequence& s : sequences) caches_.push_back(*s.cache);
  for (std::size_t i = 0; i < sequences.size(); ++i)
    sequences_.push_back({&caches_[i], sequences[i].rows});
}

const KeyValues& memory_of(KvCache& cache, std::int64_t layer) {
  const KeyValues& memory = cache.layer(layer).memory();
  if (!memory)
    throw ArgumentError("this decoder reads from an image or a sound: give it at least one");
  return memory;
}

Tensor cross_attention(Context& ctx, const Tensor& q, std::int64_t layer, const BlockRows& rows,
                       const AttentionOptions& options) {
  constexpr std::int64_t kMostTogether = 8;
  const std::span<const Sequence> sequences = rows.sequences;
  Tensor out = ctx.empty(q.shape());
  std::pmr::vector<AttentionItem> items(ctx.lists());
  items.reserve(sequences.size());
  std::int64_t at = 0;
  for (std::size_t i = 0; i < sequences.size();) {
    const KeyValues& memory = memory_of(*sequences[i].cache, layer);
    std::int64_t end = at + rows.wanted(sequences[i++]);
    // Single rows of sequences with the same memory (next tokens of beams) read it together.
    while (i < sequences.size() && rows.wanted(sequences[i]) == 1 &&
           rows.wanted(sequences[i - 1]) == 1 && end - at < kMostTogether &&
           sequences[i].cache->layer(layer).memory().same_as(memory))
      ++i, ++end;
    items.push_back({q.slice(at, end), memory, out.slice(at, end)});
    at = end;
  }
  attention(ctx, items, options);
  return out;
}

}  // namespace tessera::text
