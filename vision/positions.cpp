#include "vision/positions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/tape.h"

namespace tessera::vision {
namespace {

/// The four neighbours of an output place and their weights.
struct Taps {
  std::array<std::int64_t, 4> index;
  std::array<float, 4> weight;
};

float cubic(float x) {  // Keys' kernel with a = -0.75 at distance x
  constexpr float a = -0.75f;
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}

std::vector<Taps> taps(std::int64_t from, std::int64_t to) {
  std::vector<Taps> all(static_cast<std::size_t>(to));
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  for (std::int64_t i = 0; i < to; ++i) {
    const float place = scale * (static_cast<float>(i) + 0.5f) - 0.5f;
    const float below = std::floor(place);
    Taps& t = all[static_cast<std::size_t>(i)];
    for (int k = 0; k < 4; ++k) {
      const auto j = static_cast<std::int64_t>(below) + k - 1;
      t.index[static_cast<std::size_t>(k)] = std::clamp<std::int64_t>(j, 0, from - 1);
      t.weight[static_cast<std::size_t>(k)] = cubic(place - below - static_cast<float>(k - 1));
    }
  }
  return all;
}

}  // namespace

Tensor resize_positions(Context& ctx, const Tensor& grid, std::int64_t rows, std::int64_t columns,
                        std::int64_t new_rows, std::int64_t new_columns) {
  if (ctx.tape && ctx.tape->wants(grid)) {
    throw UnsupportedError(
        "position embeddings are trained on images of their own size only; freeze them or change "
        "the size in preprocessor_config.json");
  }
  const std::int64_t width = grid.dim(1);
  const std::vector<Taps> down = taps(rows, new_rows), across = taps(columns, new_columns);
  Tensor out = Tensor::zeros({new_rows * new_columns, width});
  float* to = out.data();
  for (const Taps& y : down) {
    for (const Taps& x : across) {
      for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t j = 0; j < 4; ++j) {
          const float weight = y.weight[i] * x.weight[j];
          const float* from = grid.data() + (y.index[i] * columns + x.index[j]) * width;
          for (std::int64_t c = 0; c < width; ++c) to[c] += weight * from[c];
        }
      }
      to += width;
    }
  }
  return out;
}

PositionTable::PositionTable(const Weights& w, const char* name, int rank, std::int64_t extra,
                             std::int64_t width)
    : extra_(extra) {
  const Tensor all = w.get(name);
  const std::int64_t count = all.rank() == rank ? all.dim(-2) : 0,
                     patches = std::max<std::int64_t>(count - extra, 0);
  side_ = static_cast<std::int64_t>(std::sqrt(static_cast<double>(patches)) + 0.5);
  const Shape rows{extra + side_ * side_, width};
  table_ = w.get_f32(name, rank == 3 ? Shape{1, rows[0], width} : rows).reshape(rows);
}

Tensor PositionTable::operator()(Context& ctx, std::int64_t high, std::int64_t wide) const {
  if (high == side_ && wide == side_) return table_;
  const Tensor grid = resize_positions(ctx, extra_ ? table_.slice(extra_, table_.dim(0)) : table_,
                                       side_, side_, high, wide);
  return extra_ ? join_rows(ctx, {table_.slice(0, extra_), grid}) : grid;
}

}  // namespace tessera::vision
