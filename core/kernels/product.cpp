#include "core/kernels/product.h"

#include <algorithm>

#include "core/kernels/vector.h"

namespace tessera::kernels {
namespace {

/// Most words of the sums in one run of a tile. A panel of b comes from the second cache in time;
/// what costs is each run's way through the result.
constexpr std::int64_t kRunWords = 768;
/// Most and least rows of a that one task takes; packed for one run they fit the second cache.
/// Multiples of every tile_rows.
constexpr std::int64_t kMostRows = 96, kLeastRows = 24;
/// Columns and words of b that are packed at a time; they fit the third cache.
constexpr std::int64_t kColumns = 4096, kPackedWords = std::int64_t{1} << 21;
constexpr std::int64_t kPanelsPerTask = 6;
/// Numbers of a result that is likely to have left the caches before it is read.
constexpr std::int64_t kLargeResult = std::int64_t{1} << 22;

const float* corner(const MatrixView& matrix, std::int64_t row, std::int64_t column) {
  return matrix.data +
         (matrix.turned ? column * matrix.stride + row : row * matrix.stride + column);
}

/// Tasks of about as many tiles of rows; so many that the threads of most machines get equal
/// shares.
std::int64_t tasks_of(std::int64_t tiles, std::int64_t tile) {
  constexpr std::int64_t kThreads = 8;
  if (tiles * tile <= kThreads * kLeastRows) return (tiles * tile + kLeastRows - 1) / kLeastRows;
  const std::int64_t tasks = (tiles * tile + kMostRows - 1) / kMostRows;
  return (tasks + kThreads - 1) / kThreads * kThreads;
}

/// A part of b, packed run by run and panel by panel, and where it is in the product.
struct Part {
  const ProductArguments& p;
  const ProductKernels& kernels;
  std::int64_t column, columns;  // of the result
  std::int64_t begin, end;       // of the sums
  std::int64_t depth;            // of a run, whole words; the last one may be shorter
  const float* packed = nullptr;

  std::int64_t padded(std::int64_t panel) const { return (columns + panel - 1) / panel * panel; }
  std::int64_t words(std::int64_t numbers) const {
    return (numbers + kernels.depth - 1) / kernels.depth;
  }
};

void pack(Context& ctx, const Part& part, float* packed) {
  const VectorKernels& kernels = vector_kernels();
  const std::int64_t panel = kernels.panel, padded = part.padded(panel);
  const std::int64_t pieces = (padded / panel + kPanelsPerTask - 1) / kPanelsPerTask;
  const std::int64_t runs = (part.end - part.begin + part.depth - 1) / part.depth;
  ctx.parallel_for(runs * pieces, [&](std::int64_t task) {
    const std::int64_t begin = part.begin + task / pieces * part.depth;
    const std::int64_t depth = std::min(part.depth, part.end - begin);
    const std::int64_t first = task % pieces * kPanelsPerTask * panel;
    const std::int64_t last = std::min(part.columns, first + kPanelsPerTask * panel);
    const MatrixView& b = part.p.b;
    float* to = packed + part.words(begin - part.begin) * padded + first * part.words(depth);
    if (b.half) {
      kernels.training.pack_half_columns(b.half + (part.column + first) * b.stride + begin,
                                         b.stride, last - first, depth, to);
    } else {
      part.kernels.pack_columns(corner(b, begin, part.column + first), b.stride, b.turned,
                                last - first, depth, to);
    }
  });
}

/// Whether complete sums are not results yet.
bool finishes(const ProductArguments& p) { return p.activation != Activation::none || p.residual; }

/// Whether the result, written once, is large and its rows begin on lines of memory.
bool passes_by(const ProductArguments& p, std::int64_t run) {
  constexpr std::int64_t kLine = 64, kNumber = sizeof(float);
  return p.k <= run && !p.initial && !finishes(p) && p.m * p.n >= kLargeResult &&
         p.ldc * kNumber % kLine == 0 && reinterpret_cast<std::uintptr_t>(p.c) % kLine == 0;
}

/// One run of the sums, [begin, begin + depth), for rows [first, first + count).
void add_run(const Part& part, std::int64_t begin, std::int64_t depth, const float* rows,
             std::int64_t first, std::int64_t count) {
  const VectorKernels& kernels = vector_kernels();
  const ProductArguments& p = part.p;
  const std::int64_t tile = kernels.training.tile_rows, panel = kernels.panel;
  const std::int64_t words = part.words(depth);
  const float* packed = part.packed + part.words(begin - part.begin) * part.padded(panel);
  const bool starts = begin == 0;  // later runs go on from what is there
  const float* initial = starts ? p.initial : p.c;
  const std::int64_t ld_initial = starts ? p.ld_initial : p.ldc;
  const bool passes = passes_by(p, part.depth);
  const std::int64_t tiles = (count + tile - 1) / tile;
  const std::int64_t lines = words * panel / (tiles * kLineNumbers);  // of a panel, for each tile
  for (std::int64_t j = 0; j < part.columns; j += panel) {
    const std::int64_t column = part.column + j;
    const float* next = packed + (j + panel < part.columns ? j + panel : 0) * words;
    for (std::int64_t i = 0; i < count; i += tile) {
      part.kernels.tile({.a = rows + i * words,
                         .b = packed + j * words,
                         .k = words,
                         .bias = starts && p.bias ? p.bias + column : nullptr,
                         .initial = initial ? initial + (first + i) * ld_initial + column : nullptr,
                         .ld_initial = ld_initial,
                         .c = p.c + (first + i) * p.ldc + column,
                         .ldc = p.ldc,
                         .rows = std::min(tile, count - i),
                         .columns = std::min(panel, part.columns - j),
                         .passes_by = passes,
                         .next = next + i / tile * lines * kLineNumbers,
                         .next_lines = lines});
    }
  }
}

/// Activation and residual of rows [first, first + count), once their sums are complete.
void finish(const Part& part, std::int64_t first, std::int64_t count) {
  const ProductArguments& p = part.p;
  if (!finishes(p)) return;
  float* const c = p.c + first * p.ldc + part.column;
  vector_kernels().finish(
      {.m = count,
       .n = part.columns,
       .sums = c,
       .lds = p.ldc,
       .bias = nullptr,
       .activation = p.activation,
       .residual = p.residual ? p.residual + first * p.ldr + part.column : nullptr,
       .ldr = p.ldr,
       .y = c,
       .ldy = p.ldc});
}

void add_part(Context& ctx, const Part& part) {
  const ProductArguments& p = part.p;
  const std::int64_t tile = vector_kernels().training.tile_rows;
  const std::int64_t tiles = (p.m + tile - 1) / tile, tasks = tasks_of(tiles, tile);
  ctx.parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t first = tiles * task / tasks * tile;
    const std::int64_t count = std::min(p.m, tiles * (task + 1) / tasks * tile) - first;
    Tensor rows = ctx.empty({kMostRows * part.words(part.depth)});
    std::int64_t begin = part.begin;
    do {
      const std::int64_t depth = std::min(part.depth, part.end - begin);
      part.kernels.pack_rows(corner(p.a, first, begin), p.a.stride, p.a.turned, count, depth,
                             rows.data());
      add_run(part, begin, depth, rows.data(), first, count);
      begin += part.depth;
    } while (begin < part.end);
    if (part.end == p.k) finish(part, first, count);
  });
}

}  // namespace

void product(Context& ctx, const ProductArguments& p) {
  if (p.m == 0 || p.n == 0) return;
  const VectorKernels& all = vector_kernels();
  const bool rounded = p.rounded && all.half.native && !p.b.half;
  const ProductKernels& kernels = rounded ? all.training.rounded : all.training.exact;
  const std::int64_t per_word = kernels.depth;
  const std::int64_t words = std::max<std::int64_t>(1, (p.k + per_word - 1) / per_word);
  const std::int64_t runs = (words + kRunWords - 1) / kRunWords;
  const std::int64_t depth = (words + runs - 1) / runs;  // of a run
  const std::int64_t columns = std::min(p.n, kColumns);
  const std::int64_t step =
      std::max<std::int64_t>(1, kPackedWords / (columns * depth)) * depth;  // whole runs
  Tensor packed = ctx.empty({(columns + all.panel) * std::max(depth, std::min(step, words))});
  for (std::int64_t column = 0; column < p.n; column += columns) {
    std::int64_t begin = 0;
    do {
      Part part{.p = p,
                .kernels = kernels,
                .column = column,
                .columns = std::min(columns, p.n - column),
                .begin = begin,
                .end = std::min(p.k, begin + step * per_word),
                .depth = depth * per_word};
      pack(ctx, part, packed.data());
      part.packed = packed.data();
      add_part(ctx, part);
      begin += step * per_word;
    } while (begin < p.k);
  }
}

void product(Context& ctx, const MatrixView& a, const MatrixView& b, std::int64_t k, bool adds,
             Tensor c) {
  product(ctx, {.m = c.dim(0),
                .n = c.dim(1),
                .k = k,
                .a = a,
                .b = b,
                .initial = adds ? c.data() : nullptr,
                .ld_initial = c.stride(0),
                .c = c.data(),
                .ldc = c.stride(0),
                .rounded = ctx.rounded_products});
}

}  // namespace tessera::kernels
