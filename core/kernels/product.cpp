#include "core/kernels/product.h"

#include <algorithm>

#include "core/kernels/vector.h"

namespace tessera::kernels {
namespace {

/// Rows of b (columns of a) taken at a time: a panel of them and a group of rows fit the first
/// cache.
constexpr std::int64_t kDepth = 256;
/// Most and least rows of a that one task takes; they fit the second cache. Multiples of every
/// tile_rows.
constexpr std::int64_t kMostRows = 96, kLeastRows = 24;
constexpr std::int64_t kPanelsPerTask = 8;

const float* corner(const MatrixView& matrix, std::int64_t row, std::int64_t column) {
  return matrix.data +
         (matrix.turned ? column * matrix.stride + row : row * matrix.stride + column);
}

/// The same for all tasks, and follows from the shape alone.
std::int64_t rows_per_task(std::int64_t m) {
  constexpr std::int64_t kTasks = 8;
  const std::int64_t rows = (m + kTasks * kLeastRows - 1) / (kTasks * kLeastRows) * kLeastRows;
  return std::min(rows, kMostRows);
}

/// One slice of the sums over k, columns [begin, begin + depth) of a.
struct Slice {
  const ProductArguments& p;
  std::int64_t begin, depth;
  const float* packed;  // b, panel by panel
  bool last() const { return begin + depth == p.k; }
};

void pack_slice(Context& ctx, const ProductArguments& p, std::int64_t begin, std::int64_t depth,
                float* packed) {
  const VectorKernels& kernels = vector_kernels();
  const std::int64_t panels = (p.n + kernels.panel - 1) / kernels.panel;
  in_pieces(ctx, panels, kPanelsPerTask, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t j = i * kernels.panel;
      kernels.training.pack_columns(corner(p.b, begin, j), p.b.stride, p.b.turned,
                                    std::min(kernels.panel, p.n - j), depth,
                                    packed + i * kernels.panel * depth);
    }
  });
}

/// Rows [first, first + count) of the result.
void slice_rows(Context& ctx, const Slice& s, std::int64_t first, std::int64_t count) {
  const VectorKernels& kernels = vector_kernels();
  const ProductArguments& p = s.p;
  const std::int64_t tile = kernels.training.tile_rows, panel = kernels.panel;
  Tensor rows = ctx.empty({(count + tile - 1) / tile * tile * s.depth});
  kernels.training.pack_rows(corner(p.a, first, s.begin), p.a.stride, p.a.turned, count, s.depth,
                             rows.data());
  const bool starts = s.begin == 0;  // later slices go on from what is there
  const float* initial = starts ? p.initial : p.c;
  const std::int64_t ld_initial = starts ? p.ld_initial : p.ldc;
  for (std::int64_t j = 0; j < p.n; j += panel) {
    for (std::int64_t i = 0; i < count; i += tile) {
      kernels.training.product_tile(
          {.a = rows.data() + i * s.depth,
           .b = s.packed + j * s.depth,
           .k = s.depth,
           .bias = starts && p.bias ? p.bias + j : nullptr,
           .initial = initial ? initial + (first + i) * ld_initial + j : nullptr,
           .ld_initial = ld_initial,
           .c = p.c + (first + i) * p.ldc + j,
           .ldc = p.ldc,
           .rows = std::min(tile, count - i),
           .columns = std::min(panel, p.n - j)});
    }
  }
  if (!s.last() || (p.activation == Activation::none && !p.residual)) return;
  float* const c = p.c + first * p.ldc;
  kernels.finish({.m = count,
                  .n = p.n,
                  .sums = c,
                  .lds = p.ldc,
                  .bias = nullptr,
                  .activation = p.activation,
                  .residual = p.residual ? p.residual + first * p.ldr : nullptr,
                  .ldr = p.ldr,
                  .y = c,
                  .ldy = p.ldc});
}

}  // namespace

void product(Context& ctx, const ProductArguments& p) {
  if (p.m == 0 || p.n == 0) return;
  const std::int64_t slices = std::max<std::int64_t>(1, (p.k + kDepth - 1) / kDepth);
  const std::int64_t depth = (p.k + slices - 1) / slices;
  const std::int64_t panel = vector_kernels().panel, columns = (p.n + panel - 1) / panel * panel;
  Tensor packed = ctx.empty({std::max<std::int64_t>(1, columns * depth)});
  std::int64_t begin = 0;
  do {
    const Slice slice{p, begin, std::min(depth, p.k - begin), packed.data()};
    pack_slice(ctx, p, begin, slice.depth, packed.data());
    in_pieces(ctx, p.m, rows_per_task(p.m), [&](std::int64_t first, std::int64_t last) {
      slice_rows(ctx, slice, first, last - first);
    });
    begin += depth;
  } while (begin < p.k);
}

}  // namespace tessera::kernels
