#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/kernels/dropout.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

using kernels::kKeyBlock;
using kernels::kQueryBlock;

/// Below this many queries, packing the keys costs more than it saves: each its own keys, or all
/// the same.
constexpr std::int64_t kFewCausalQueries = 5, kFewQueries = 9;

/// Keys and values from row `row` and column `column` on.
kernels::KeyValueRows rows_of(const Tensor& k, const Tensor& v, std::int64_t row,
                              std::int64_t column) {
  const std::int64_t bytes = k.dtype() == DType::bf16 ? 2 : 4;
  const auto at = [&](const Tensor& t) {
    return static_cast<const std::uint8_t*>(t.raw()) + bytes * (row * t.stride(0) + column);
  };
  return {at(k), at(v), k.stride(0), v.stride(0), k.dtype() == DType::bf16};
}

struct Sizes {
  std::int64_t queries, keys, heads, kv_heads, width;
  float scale;
  bool causal, rounded;
  float dropout = 0;
  std::uint64_t stream = 0;
  std::int64_t kv_head(std::int64_t head) const { return head / (heads / kv_heads); }
  /// Keys that query i sees.
  std::int64_t visible(std::int64_t i) const { return causal ? keys - queries + i + 1 : keys; }
};

Sizes check(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const std::int64_t kv_heads = options.kv_heads ? options.kv_heads : options.heads;
  const bool plain = q.rank() == 2 && k.rank() == 2 && v.rank() == 2 && q.stride(1) == 1 &&
                     k.stride(1) == 1 && v.stride(1) == 1 && k.shape() == v.shape() &&
                     k.dtype() == v.dtype() &&
                     (k.dtype() == DType::f32 || k.dtype() == DType::bf16);
  if (!plain || options.heads < 1 || options.heads % kv_heads != 0 ||
      q.dim(1) % options.heads != 0 || k.dim(1) * options.heads != q.dim(1) * kv_heads ||
      k.dim(0) == 0 || (options.causal && k.dim(0) < q.dim(0))) {
    throw ShapeError(concat("attention of ", options.heads, " heads (", kv_heads,
                            " of keys) was given queries ", q.shape().str(), ", keys ",
                            k.shape().str(), ", values ", v.shape().str()));
  }
  const std::int64_t width = q.dim(1) / options.heads;
  const float scale =
      options.scale != 0 ? options.scale : 1.0f / std::sqrt(static_cast<float>(width));
  const bool rounded = options.rounded && kernels::vector_kernels().half.native;
  return {q.dim(0), k.dim(0), options.heads, kv_heads, width, scale, options.causal, rounded};
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
void put_together(const std::vector<Partial>& parts, float* out) {
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

/// Queries [first, first + count), which all see keys [0, visible), over keys and values as they
/// lie, in parts that follow from the number of keys alone.
void same_keys(Context& ctx, const Sizes& s, std::int64_t first, std::int64_t count,
               const Tensor& q, const Tensor& k, const Tensor& v, Tensor& out) {
  constexpr std::int64_t kKeysPerPart = 128;
  const std::int64_t visible = s.visible(first),
                     pieces = (visible + kKeysPerPart - 1) / kKeysPerPart;
  const std::int64_t step = (visible + 4 * pieces - 1) / (4 * pieces) * 4, rows = count * s.heads;
  const std::int64_t size = Partial::size(rows, s.width);
  Tensor memory = ctx.empty({pieces, size}), scores = ctx.empty({pieces, rows * step});
  std::vector<Partial> parts;
  for (std::int64_t i = 0; i * step < visible; ++i)
    parts.push_back({rows, s.width, memory.data() + i * size});
  ctx.parallel_for(static_cast<std::int64_t>(parts.size()), [&](std::int64_t i) {
    const Partial& part = parts[static_cast<std::size_t>(i)];
    kernels::vector_kernels().attention_part({.q = q.data() + first * q.stride(0),
                                              .ldq = q.stride(0),
                                              .queries = count,
                                              .heads = s.heads,
                                              .kv_heads = s.kv_heads,
                                              .width = s.width,
                                              .scale = s.scale,
                                              .rows = rows_of(k, v, i * step, 0),
                                              .keys = std::min(step, visible - i * step),
                                              .scores = scores.data() + i * rows * step,
                                              .best = part.best(),
                                              .total = part.total(),
                                              .out = part.out()});
  });
  put_together(parts, out.data() + first * out.dim(1));
}

/// Decoding steps: keys and values are read once for all queries that see the same of them.
void few_queries(Context& ctx, const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v,
                 Tensor& out) {
  const std::int64_t together = s.causal ? 1 : s.queries;
  for (std::int64_t i = 0; i < s.queries; i += together)
    same_keys(ctx, s, i, together, q, k, v, out);
}

/// Blocks of queries over packed keys and values: encoders and prefill.
void many_queries(Context& ctx, const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v,
                  Tensor& out) {
  const auto& kernels = kernels::vector_kernels();
  const auto& own = s.rounded ? kernels.rounded : kernels.exact;
  const auto padded = [](std::int64_t n, std::int64_t step) {
    return (n + step - 1) / step * step;
  };
  const std::int64_t keys_size =
      padded(s.keys, kernels.panel) * padded(s.width, own.depth) * own.bytes;
  const std::int64_t values_size =
      padded(s.keys, own.depth) * padded(s.width, kernels.panel) * own.bytes;
  Tensor packed = ctx.empty({s.kv_heads, keys_size + values_size}, DType::u8);
  const std::int64_t pieces = (s.keys + kKeyBlock - 1) / kKeyBlock;
  ctx.parallel_for(s.kv_heads * pieces, [&](std::int64_t task) {
    const std::int64_t h = task / pieces, begin = task % pieces * kKeyBlock;
    std::uint8_t* to = packed.data<std::uint8_t>() + h * packed.dim(1);
    own.pack_head(rows_of(k, v, 0, h * s.width), begin, std::min(s.keys, begin + kKeyBlock),
                  s.width, to, to + keys_size);
  });

  const std::int64_t blocks = (s.queries + kQueryBlock - 1) / kQueryBlock;
  const std::int64_t scratch_size = kernels::attention_scratch(s.width);
  const auto block = s.dropout > 0 ? own.dropping_block : own.block;
  ctx.parallel_for(s.heads * blocks, [&](std::int64_t task) {
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
           .head = {head, head + keys_size},
           .out = out.data() + i * out.dim(1) + h * s.width,
           .ldo = out.dim(1),
           .scratch = scratch.data(),
           .dropped = kernels::dropout_of(s.stream, s.dropout, (h * s.queries + i) * s.keys)});
  });
}

/// Causal: half of a square is not computed. Keys and values are read once where there is one
/// query.
StageWork work_of(const Sizes& s, std::int64_t bytes) {
  const double seen =
      static_cast<double>(s.keys) - (s.causal ? static_cast<double>(s.queries - 1) / 2 : 0.0);
  return {4.0 * static_cast<double>(s.queries * s.heads * s.width) * seen,
          2.0 * static_cast<double>(bytes * s.keys * s.kv_heads * s.width)};
}

}  // namespace

void attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionOptions& options, Tensor& out) {
  Sizes sizes = check(q, k, v, options);
  if (ctx.tape && options.dropout > 0) {
    if (options.dropout >= 1)
      throw ArgumentError(
          concat("attention dropout of ", options.dropout, "; expected a share below 1"));
    sizes.dropout = options.dropout;
    sizes.stream = ctx.tape->next_stream();
  }
  const StageScope scope(ctx, "attention", work_of(sizes, k.dtype() == DType::bf16 ? 2 : 4));
  const bool few = sizes.queries < (sizes.causal ? kFewCausalQueries : kFewQueries);
  if (few && sizes.dropout == 0) {
    few_queries(ctx, sizes, q, k, v, out);
  } else {
    many_queries(ctx, sizes, q, k, v, out);
  }
  if (ctx.tape) {
    ctx.tape->record({.op = Op::attention,
                      .inputs = {q, k, v},
                      .output = out,
                      .attention = {.heads = sizes.heads,
                                    .kv_heads = sizes.kv_heads,
                                    .causal = sizes.causal,
                                    .scale = sizes.scale,
                                    .dropout = sizes.dropout,
                                    .stream = sizes.stream}});
  }
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
  for (std::size_t i = 0; i + 1 < begin.size(); ++i) {
    const auto rows = [&](const Tensor& t) { return t.slice(begin[i], begin[i + 1]); };
    Tensor own = rows(out);
    attention(ctx, rows(q), rows(k), rows(v), options, own);
  }
  return out;
}

}  // namespace tessera
