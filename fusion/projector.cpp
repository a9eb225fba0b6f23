#include "fusion/projector.h"

#include <vector>

#include "core/error.h"

namespace tessera::fusion {
namespace {

/// The rows of a grid, block by block of tall x wide in reading order, those of a block beside each
/// other; incomplete blocks are dropped. [B, tall*wide*W]
Tensor blocks(Context& ctx, const Tensor& rows, const RowLayout& grid, std::int64_t tall,
              std::int64_t wide) {
  std::vector<std::int32_t> ids;
  for (std::int64_t y = 0; y + tall <= grid.rows; y += tall) {
    for (std::int64_t x = 0; x + wide <= grid.columns; x += wide) {
      for (std::int64_t i = 0; i < tall * wide; ++i)
        ids.push_back(static_cast<std::int32_t>((y + i / wide) * grid.columns + x + i % wide));
    }
  }
  const std::int64_t size = tall * wide;
  return gather_rows(ctx, rows, ids)
      .reshape({static_cast<std::int64_t>(ids.size()) / size, size * rows.dim(1)});
}

/// Mean of factor x factor blocks (of factor neighbours where the grid is one row).
Tensor average_pool(Context& ctx, const Tensor& rows, const RowLayout& grid, std::int64_t factor) {
  const std::int64_t tall = grid.rows == 1 ? 1 : factor, width = rows.dim(1);
  const Tensor beside = blocks(ctx, rows, grid, tall, factor);
  Tensor sum = beside.columns(0, width);
  for (std::int64_t i = 1; i < tall * factor; ++i)
    sum = add(ctx, sum, beside.columns(i * width, (i + 1) * width));
  return scaled(ctx, sum, 1.0f / static_cast<float>(tall * factor));
}

Tensor pixel_shuffle(Context& ctx, const Tensor& rows, const RowLayout& grid, std::int64_t factor) {
  if (grid.rows % factor != 0 || grid.columns % factor != 0) {
    throw ShapeError(concat("pixel shuffle by ", factor, " does not divide a grid of ", grid.rows,
                            " x ", grid.columns));
  }
  return blocks(ctx, rows, grid, factor, factor);
}

/// factor consecutive rows become one; the tail is filled with zeros.
Tensor stack(Context& ctx, const Tensor& rows, std::int64_t factor) {
  const std::int64_t count = (rows.dim(0) + factor - 1) / factor;
  const std::int64_t missing = count * factor - rows.dim(0);
  std::vector<Tensor> parts{rows};
  if (missing > 0) parts.push_back(Tensor::zeros({missing, rows.dim(1)}));
  return join_rows(ctx, parts).reshape({count, factor * rows.dim(1)});
}

}  // namespace

Projector::Projector(Linear linear) : project_(std::move(linear)) {}

Projector::Projector(const Config& config, const Weights& w, std::int64_t tower_width,
                     std::int64_t decoder_width) {
  std::int64_t width = tower_width;
  const std::int64_t factor = config.bounded("factor", 1, 1, 64);
  const std::string reduce = config.string("reduce", "none"), type = config.string("type", "none");
  if (reduce == "average_pool") {
    reduce_ = AveragePool{factor};
  } else if (reduce == "pixel_shuffle") {
    reduce_ = PixelShuffle{factor};
    width *= factor * factor;
  } else if (reduce == "stack") {
    reduce_ = Stack{factor};
    width *= factor;
  } else if (reduce != "none") {
    throw FormatError(concat(config.where(), ".reduce: \"", reduce,
                             "\" is not one of none, average_pool, pixel_shuffle, stack"));
  }
  drop_extra_ = config.boolean("drop_class_token", false) || reduce == "average_pool" ||
                reduce == "pixel_shuffle";
  if (config.boolean("norm", false))
    norm_ = LayerNorm(w.at("norm"), width, config.number("norm_eps", 1e-5));
  if (type == "linear") {
    project_ = Linear(w.at("linear"), width, decoder_width, Linear::Bias::optional);
  } else if (type == "mlp") {
    const std::int64_t hidden = config.bounded("hidden_size", decoder_width, 1, 1 << 18);
    project_ = Mlp{Linear(w.at("linear_1"), width, hidden, Linear::Bias::optional),
                   Linear(w.at("linear_2"), hidden, decoder_width, Linear::Bias::optional),
                   activation_from_name(config.string("activation", "gelu"))};
  } else if (type != "none") {
    throw FormatError(
        concat(config.where(), ".type: \"", type, "\" is not one of none, linear, mlp"));
  } else if (width != decoder_width) {
    throw FormatError(concat(config.where(), ": rows of ", width,
                             " numbers need a projection to the decoder's ", decoder_width,
                             ", but type is \"none\""));
  }
  if (config.boolean("position_embedding", false)) {
    positions_ =
        w.get_f32("position_embedding", {w.get("position_embedding").dim(0), decoder_width});
  }
}

Tensor Projector::reduced(Context& ctx, const Tensor& rows, const RowLayout& layout) const {
  if (const auto* pool = std::get_if<AveragePool>(&reduce_))
    return average_pool(ctx, rows, layout, pool->factor);
  if (const auto* shuffle = std::get_if<PixelShuffle>(&reduce_))
    return pixel_shuffle(ctx, rows, layout, shuffle->factor);
  if (const auto* frames = std::get_if<Stack>(&reduce_)) return stack(ctx, rows, frames->factor);
  return rows;
}

Tensor Projector::operator()(Context& ctx, const Tensor& rows, const RowLayout& layout) const {
  Tensor x = reduced(ctx, drop_extra_ ? rows.slice(layout.extra, rows.dim(0)) : rows, layout);
  if (norm_.weight) x = norm_(ctx, x);
  if (const auto* linear = std::get_if<Linear>(&project_)) x = (*linear)(ctx, x);
  if (const auto* mlp = std::get_if<Mlp>(&project_)) {
    x = mlp->second(ctx, mlp->first(ctx, x, {.activation = mlp->activation}));
  }
  if (!positions_) return x;
  if (x.dim(0) > positions_.dim(0)) {
    throw ShapeError(concat("an image or sound of ", x.dim(0),
                            " rows; this model has positions for ", positions_.dim(0)));
  }
  return add(ctx, x, positions_.slice(0, x.dim(0)));
}

}  // namespace tessera::fusion
