#pragma once
#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "core/error.h"
#include "core/tensor.h"

// How work on rows is cut into tasks: by its size alone, never by the number of threads.
namespace tessera::train {

constexpr std::int64_t kRowsPerPiece = 64;

/// Row i of a tensor seen as rows of its last dimension: contiguous, or of rank 2.
template <class T>
auto row_of(T&& t, std::int64_t i) {
  return t.data() + i * (t.rank() == 2 ? t.stride(0) : t.dim(-1));
}

/// Calls work(row number, width, row) for every row of t, in parallel.
template <class Work>
void for_rows(Context& ctx, Tensor t, Work work) {
  if (t.numel() == 0) return;
  if (t.stride(-1) != 1 || (t.rank() != 2 && !t.is_contiguous()))
    throw ShapeError(concat("gradients of strided tensors of shape ", t.shape().str()));
  const std::int64_t width = t.dim(-1), rows = t.numel() / width;
  in_pieces(ctx, rows, std::max<std::int64_t>(1, kRowsPerPiece * 256 / width),
            [&](std::int64_t begin, std::int64_t end) {
              for (std::int64_t i = begin; i < end; ++i) work(i, width, row_of(t, i));
            });
}

}  // namespace tessera::train
