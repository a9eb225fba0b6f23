#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/kernels/dropout.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "core/profile.h"
#include "core/tape.h"
#include "core/task_groups.h"

namespace tessera {
namespace {

using kernels::kKeyBlock;
using kernels::kQueryBlock;

/// Below this many queries, packing the keys costs more than it saves: each its own keys, or all
/// the same.
constexpr std::int64_t kFewCausalQueries = 5, kFewQueries = 9;

/// What may not be rows at all is seen when it is checked.
KeyValues rows_given(const Tensor& k, const Tensor& v) {
  const bool rows = k.rank() == 2;
  return {k, v, {}, rows ? k.dim(0) : 0, rows ? k.dim(1) : 0};
}

/// Below this many keys 8 bits save a few hundredths of an encoder's or a prompt's time, not worth
/// what rounding does to an image's rows.
constexpr std::int64_t kManyKeys = 512;

/// Keys and values from row `row` and column `column` on.
kernels::KeyValueRows rows_of(const KeyValues& seen, std::int64_t row, std::int64_t column) {
  const auto& [k, v, blocks, length, width] = seen;
  if (blocks) return {};
  const std::int64_t bytes = k.dtype() == DType::bf16 ? 2 : 4;
  const auto at = [&](const Tensor& t) {
    return static_cast<const std::uint8_t*>(t.raw()) + bytes * (row * t.stride(0) + column);
  };
  return {at(k), at(v), k.stride(0), v.stride(0), k.dtype() == DType::bf16};
}

struct Sizes {
  std::int64_t queries, keys, heads, kv_heads, width;
  float scale;
  bool causal, rounded, shorts, bytes;
  float dropout = 0;
  std::uint64_t stream = 0;
  std::int64_t place = 0;  // of its first weight among those of all items
  std::int64_t kv_head(std::int64_t head) const { return head / (heads / kv_heads); }
  std::int64_t weights() const { return heads * queries * keys; }
  /// Keys that query i sees.
  std::int64_t visible(std::int64_t i) const { return causal ? keys - queries + i + 1 : keys; }
};

/// Whether rows, or blocks for this many heads, are laid out as kernels read them.
bool readable(const KeyValues& seen, std::int64_t kv_heads) {
  if (seen.bytes) return seen.bytes.dim(1) == kv_heads;
  const auto& [k, v, bytes, length, width] = seen;
  return k.rank() == 2 && v.rank() == 2 && k.stride(1) == 1 && v.stride(1) == 1 &&
         k.shape() == v.shape() && k.dtype() == v.dtype() &&
         (k.dtype() == DType::f32 || k.dtype() == DType::bf16);
}

Sizes check(const Tensor& q, const KeyValues& seen, const AttentionOptions& options) {
  const std::int64_t kv_heads = options.kv_heads ? options.kv_heads : options.heads;
  const bool plain = q.rank() == 2 && q.stride(1) == 1 && readable(seen, kv_heads);
  if (!plain || options.heads < 1 || options.heads % kv_heads != 0 ||
      q.dim(1) % options.heads != 0 || seen.width * options.heads != q.dim(1) * kv_heads ||
      seen.length == 0 || (options.causal && seen.length < q.dim(0))) {
    throw ShapeError(concat("attention of ", options.heads, " heads (", kv_heads,
                            " of keys) was given queries ", q.shape().str(), ", keys ",
                            Shape{seen.length, seen.width}.str(), " in ",
                            seen.bytes ? seen.bytes.shape().str() : seen.k.shape().str(),
                            ", values ", seen.v.shape().str()));
  }
  const std::int64_t width = q.dim(1) / options.heads;
  const float scale =
      options.scale != 0 ? options.scale : 1.0f / std::sqrt(static_cast<float>(width));
  const auto& kernels = kernels::vector_kernels();
  const bool native = kernels.half.native, fits = width <= kernels::kWidestIntegerHead;
  // A decoder keeps keys in f32 where attention is to be as exact as can be.
  const bool wanted = options.in_bytes && (!options.causal || seen.k.dtype() == DType::bf16);
  return {
      .queries = q.dim(0),
      .keys = seen.length,
      .heads = options.heads,
      .kv_heads = kv_heads,
      .width = width,
      .scale = scale,
      .causal = options.causal,
      .rounded = options.rounded && native,
      .shorts = options.rounded && !native && kernels.multiplies_shorts && fits,
      .bytes = wanted && kernels.weighs_bytes && fits && !seen.bytes && seen.length >= kManyKeys};
}

/// Where the parts of attention_part() lie in memory.
struct Partial {
  std::int64_t rows, width;
  float* memory;
  static std::int64_t size(std::int64_t rows, std::int64_t width) { return rows * (width + 2); }
  float* out() const { return memory; }
  float* best() const { return memory + rows * width; }
  float* total() const { return best() + rows; }
};

/// out [rows, width]: the parts as one softmax.
void put_together(std::span<const Partial> parts, float* out) {
  const std::int64_t rows = parts.front().rows, width = parts.front().width;
  for (std::int64_t r = 0; r < rows; ++r, out += width) {
    float best = parts.front().best()[r], total = 0;
    for (const Partial& p : parts) best = std::max(best, p.best()[r]);
    std::fill_n(out, width, 0.0f);
    for (const Partial& p : parts) {
      const float factor = std::exp(p.best()[r] - best);
      total += factor * p.total()[r];
      for (std::int64_t c = 0; c < width; ++c) out[c] += factor * p.out()[r * width + c];
    }
    const float inverse = 1.0f / total;
    for (std::int64_t c = 0; c < width; ++c) out[c] *= inverse;
  }
}

/// Queries of an item that all see keys [0, visible), and the parts of these that are computed one
/// by one; how they are cut follows from the number of keys alone.
struct SameKeys {
  SameKeys(const Sizes& s, AttentionItem& item_, std::int64_t first_, std::int64_t count_)
      : item(&item_),
        first(first_),
        count(count_),
        visible(s.visible(first_)),
        rows(count_ * s.heads) {
    constexpr std::int64_t kKeysPerPart = 256;
    if (item->seen.bytes) {  // a block each
      step = kernels::kByteKeys;
      parts = (visible + step - 1) / step;
      scratch = kernels::vector_kernels().byte_attention.scratch(s.width);
      return;
    }
    const std::int64_t pieces = (visible + kKeysPerPart - 1) / kKeysPerPart;
    step = (visible + 4 * pieces - 1) / (4 * pieces) * 4;
    parts = (visible + step - 1) / step;
  }
  /// Of scratch memory, for partials, scores and what the kernel needs, of all parts.
  std::int64_t floats(std::int64_t width) const {
    return parts * (Partial::size(rows, width) + rows * step + scratch);
  }
  AttentionItem* item;
  std::int64_t first, count, visible, rows, step, parts, scratch = 0;
  float* memory = nullptr;  // partials, then scores and scratch of each
};

/// Decoding steps: keys and values are read once, as they lie, for all queries that see the same of
/// them.
void few_queries(Context& ctx, const Sizes& s, std::span<SameKeys> groups) {
  std::pmr::vector<std::pair<const SameKeys*, std::int64_t>> tasks(ctx.lists());
  std::int64_t size = 0;
  for (const SameKeys& g : groups) size += g.floats(s.width);
  // It grows with the sequences: by doubling, so that steps share the same memory.
  constexpr std::uint64_t kLeast = 1 << 14;
  const std::uint64_t room = std::max(kLeast, std::bit_ceil(static_cast<std::uint64_t>(size)));
  Tensor memory = ctx.empty({static_cast<std::int64_t>(room)});
  float* at = memory.data();
  for (SameKeys& g : groups) {
    g.memory = at;
    at += g.floats(s.width);
    for (std::int64_t i = 0; i < g.parts; ++i) tasks.emplace_back(&g, i);
  }
  const auto partial = [&](const SameKeys& g, std::int64_t i) {
    return Partial{g.rows, s.width, g.memory + i * Partial::size(g.rows, s.width)};
  };
  ctx.parallel_for(std::ssize(tasks), [&](std::int64_t task) {
    const auto [g, i] = tasks[static_cast<std::size_t>(task)];
    const AttentionItem& item = *g->item;
    const Partial part = partial(*g, i);
    const std::int64_t scores_size = g->rows * g->step;
    float* scores = partial(*g, g->parts).memory + i * (scores_size + g->scratch);
    const Tensor& blocks = item.seen.bytes;
    kernels::vector_kernels().attention_part(
        {.q = item.q.data() + g->first * item.q.stride(0),
         .ldq = item.q.stride(0),
         .queries = g->count,
         .heads = s.heads,
         .kv_heads = s.kv_heads,
         .width = s.width,
         .scale = s.scale,
         .rows = rows_of(item.seen, i * g->step, 0),
         .bytes = blocks ? blocks.data<std::uint8_t>() + i * blocks.stride(0) : nullptr,
         .keys = std::min(g->step, g->visible - i * g->step),
         .scores = scores,
         .best = part.best(),
         .total = part.total(),
         .out = part.out(),
         .scratch = scores + scores_size});
  });
  std::pmr::vector<Partial> parts(ctx.lists());
  for (const SameKeys& g : groups) {
    parts.clear();
    for (std::int64_t i = 0; i < g.parts; ++i) parts.push_back(partial(g, i));
    put_together(parts, g.item->out.data() + g.first * g.item->out.dim(1));
  }
}

/// Blocks of queries over packed keys and values: encoders, prefill and training, which wants
/// lse [queries, heads] as well.
void many_queries(Context& ctx, const Sizes& s, AttentionItem& item, Tensor lse) {
  const Tensor& q = item.q;
  Tensor& out = item.out;
  const KeyValues rows = item.seen.as_rows(ctx);
  const auto& kernels = kernels::vector_kernels();
  const bool plain = s.dropout == 0 && !lse;  // all that integers can do
  const auto& own = plain && s.bytes    ? kernels.bytes
                    : plain && s.shorts ? kernels.shorts
                    : s.rounded         ? kernels.rounded
                                        : kernels.exact;
  const auto padded = [](std::int64_t n, std::int64_t step) {
    return (n + step - 1) / step * step;
  };
  const std::int64_t keys_size =
      padded(s.keys, kernels.panel) * padded(s.width, own.depth) * own.bytes;
  const std::int64_t values_size =
      padded(s.keys, kernels.panel) * padded(s.width, kernels.panel) * own.bytes;
  Tensor packed = ctx.empty({s.kv_heads, keys_size + values_size}, DType::u8);
  Tensor units =
      ctx.empty({s.kv_heads, own.measure_head ? kernels::attention_units(s.keys, s.width) : 0});
  const auto units_of = [&](std::int64_t h) { return units.data() + h * units.dim(1); };
  // Rows that are measured first are still in the cache when they are packed.
  const std::int64_t piece = own.measure_head ? s.keys : kKeyBlock,
                     pieces = (s.keys + piece - 1) / piece;
  const auto pack = [&](std::int64_t h, std::int64_t i) {
    const std::int64_t begin = i * piece;
    const auto head = rows_of(rows, 0, h * s.width);
    if (own.measure_head) own.measure_head(head, s.keys, s.width, units_of(h));
    std::uint8_t* to = packed.data<std::uint8_t>() + h * packed.dim(1);
    own.pack_head(head, begin, std::min(s.keys, begin + piece), s.width, to, to + keys_size,
                  units_of(h));
  };

  const std::int64_t blocks = (s.queries + kQueryBlock - 1) / kQueryBlock;
  const std::int64_t scratch_size = kernels::attention_scratch(s.width);
  const auto block = s.dropout > 0 ? own.dropping_block : own.block;
  const std::int64_t group = s.heads / s.kv_heads * blocks;
  TaskGroups(ctx, s.kv_heads, group)
      .run(pieces, pack, [&](std::int64_t kv_head, std::int64_t task) {
        task += kv_head * group;
        const std::int64_t h = task / blocks, i = task % blocks * kQueryBlock;
        Tensor scratch = ctx.empty({scratch_size});
        const std::uint8_t* head = packed.data<std::uint8_t>() + s.kv_head(h) * packed.dim(1);
        block({.q = q.data() + i * q.stride(0) + h * s.width,
               .ldq = q.stride(0),
               .rows = std::min(kQueryBlock, s.queries - i),
               .first = s.visible(i),
               .causal = s.causal,
               .keys = s.keys,
               .width = s.width,
               .scale = s.scale,
               .head = {head, head + keys_size, units_of(s.kv_head(h))},
               .out = out.data() + i * out.dim(1) + h * s.width,
               .ldo = out.dim(1),
               .scratch = scratch.data(),
               .dropped =
                   kernels::dropout_of(s.stream, s.dropout, s.place + (h * s.queries + i) * s.keys),
               .lse = lse ? lse.data() + i * lse.stride(0) + h : nullptr,
               .ld_lse = lse ? lse.stride(0) : 0});
      });
}

/// Causal: half of a square is not computed. Keys and values are read once where there is one
/// query.
StageWork work_of(const Sizes& s, double bytes_per_key) {
  const double seen =
      static_cast<double>(s.keys) - (s.causal ? static_cast<double>(s.queries - 1) / 2 : 0.0);
  return {4.0 * static_cast<double>(s.queries * s.heads * s.width) * seen,
          bytes_per_key * static_cast<double>(s.keys)};
}

std::pmr::vector<Sizes> sizes_of(Context& ctx, std::span<AttentionItem> items,
                                 const AttentionOptions& options) {
  std::pmr::vector<Sizes> all(ctx.lists());
  for (const AttentionItem& item : items) {
    Sizes& s = all.emplace_back(check(item.q, item.seen, options));
    if (ctx.tape && ctx.rounded_products) s.rounded = kernels::vector_kernels().half.native;
  }
  if (!ctx.tape || options.dropout <= 0) return all;
  if (options.dropout >= 1)
    throw ArgumentError(
        concat("attention dropout of ", options.dropout, "; expected a share below 1"));
  const std::uint64_t stream = ctx.tape->next_stream();
  std::int64_t place = 0;
  for (Sizes& s : all) {
    s.dropout = options.dropout;
    s.stream = stream;
    s.place = place;
    place += s.weights();
  }
  return all;
}

/// lse [queries of all items, heads], or empty.
void attend(Context& ctx, std::span<AttentionItem> items, std::span<const Sizes> sizes,
            const Tensor& lse = {}) {
  StageWork work;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const StageWork own = work_of(sizes[i], items[i].seen.bytes_per_row());
    work.operations += own.operations;
    work.bytes += own.bytes;
  }
  const StageScope scope(ctx, "attention", work);
  std::pmr::vector<SameKeys> few(ctx.lists());
  std::int64_t first = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Sizes& s = sizes[i];
    AttentionItem& item = items[i];
    if (s.queries >= (s.causal ? kFewCausalQueries : kFewQueries) || s.dropout > 0 || lse) {
      many_queries(ctx, s, item, lse ? lse.slice(first, first + s.queries) : lse);
    } else if (s.causal) {
      for (std::int64_t row = 0; row < s.queries; ++row) few.emplace_back(s, item, row, 1);
    } else if (s.queries > 0) {
      few.emplace_back(s, item, 0, s.queries);
    }
    first += s.queries;
  }
  if (!few.empty()) few_queries(ctx, sizes.front(), few);
}

/// Empty where no gradient is wanted.
Tensor room_for_lse(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                    const AttentionOptions& options) {
  const Tape* tape = ctx.tape;
  const bool wanted = tape && (tape->wants(q) || tape->wants(k) || tape->wants(v));
  return wanted ? ctx.empty({q.dim(0), options.heads}) : Tensor();
}

void record(Context& ctx, const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v,
            const Tensor& lse, const Tensor& out, std::span<const std::int64_t> begin) {
  ctx.tape->record({.op = Op::attention,
                    .inputs = {q, k, v, lse},
                    .output = out,
                    .attention = {.heads = s.heads,
                                  .kv_heads = s.kv_heads,
                                  .causal = s.causal,
                                  .scale = s.scale,
                                  .dropout = s.dropout,
                                  .stream = s.stream},
                    .begin = {begin.begin(), begin.end()}});
}

}  // namespace

void attention(Context& ctx, std::span<AttentionItem> items, const AttentionOptions& options) {
  if (ctx.tape) {  // each has an output of its own
    for (AttentionItem& item : items)
      attention(ctx, item.q, item.seen.k, item.seen.v, options, item.out);
    return;
  }
  attend(ctx, items, sizes_of(ctx, items, options));
}

void attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionOptions& options, Tensor& out) {
  AttentionItem item{q, rows_given(k, v), out};
  const auto sizes = sizes_of(ctx, std::span(&item, 1), options);
  const Tensor lse = room_for_lse(ctx, q, k, v, options);
  attend(ctx, std::span(&item, 1), sizes, lse);
  if (lse) record(ctx, sizes.front(), q, k, v, lse, out, {});
}

Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options) {
  Tensor out = ctx.empty(q.shape());
  attention(ctx, q, k, v, options, out);
  return out;
}

Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options, std::span<const std::int64_t> begin) {
  Tensor out = ctx.empty(q.shape());
  std::vector<AttentionItem> items;
  for (std::size_t i = 0; i + 1 < begin.size(); ++i) {
    const auto rows = [&](const Tensor& t) { return t.slice(begin[i], begin[i + 1]); };
    items.push_back({rows(q), rows_given(rows(k), rows(v)), rows(out)});
  }
  const auto sizes = sizes_of(ctx, items, options);
  const Tensor lse = room_for_lse(ctx, q, k, v, options);
  attend(ctx, items, sizes, lse);
  if (lse && !items.empty()) record(ctx, sizes.front(), q, k, v, lse, out, begin);
  return out;
}

}  // namespace tessera
