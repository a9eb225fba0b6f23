#include "core/input_moments.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/kernels/product.h"

namespace tessera {
namespace {

/// Rows that are summed at a time.
constexpr std::int64_t kRows = 512;
/// Rows of a sum that are computed at a time: of each, what lies right of the diagonal.
constexpr std::int64_t kBand = 512;
/// The sum and what is made of it take 20 bytes a number.
constexpr std::int64_t kMostInputs = 32768;

/// Puts what lies above the diagonal below it as well.
void mirror(Context& ctx, Tensor& square) {
  const std::int64_t n = square.dim(0);
  float* numbers = square.data();
  in_pieces(ctx, n, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j < i; ++j) numbers[i * n + j] = numbers[j * n + i];
  });
}

}  // namespace

InputRecorder::InputRecorder(Context& ctx,
                             std::function<bool(const std::vector<std::string>&)> wanted,
                             std::size_t bytes)
    : ctx_(ctx), wanted_(std::move(wanted)), room_(bytes) {
  ctx_.input_observer = [this](std::span<const std::string> matrices, const Tensor& x) {
    see(matrices, x);
  };
}

InputRecorder::Layer& InputRecorder::layer_of(std::span<const std::string> matrices,
                                              std::int64_t width) {
  const auto [place, is_new] = places_.try_emplace(matrices.front(), layers_.size());
  if (!is_new) return layers_[place->second];
  Layer& layer = layers_.emplace_back();
  layer.moments.matrices.assign(matrices.begin(), matrices.end());
  layer.recorded = wanted_(layer.moments.matrices);
  if (!layer.recorded) return layer;
  const auto bytes = static_cast<std::size_t>(width * width) * sizeof(float);
  const bool first = std::ranges::none_of(layers_, [](const Layer& l) { return !!l.rows; });
  if (bytes > room_ && !first) {
    lacked_room_ = true;
    layer.recorded = false;
    return layer;
  }
  if (width > kMostInputs) {
    throw UnsupportedError(concat(matrices.front(), ": has ", width, " inputs, whose products ",
                                  "would take ", 20 * width * width / 1000000000, " GB; at most ",
                                  kMostInputs, " can be recorded"));
  }
  room_ -= std::min(room_, bytes);
  layer.moments.sum = Tensor::zeros({width, width});
  layer.rows = Tensor::empty({kRows, width});
  return layer;
}

void InputRecorder::see(std::span<const std::string> matrices, const Tensor& x) {
  Layer& layer = layer_of(matrices, x.dim(1));
  const std::int64_t width = x.dim(1);
  if (!layer.recorded || layer.rows.dim(1) != width) return;  // another matrix of that name
  for (std::int64_t i = 0; i < x.dim(0); ++i) {
    std::copy_n(x.data() + i * x.stride(0), width, layer.rows.data() + layer.waiting * width);
    if (++layer.waiting == kRows) add_waiting(layer);
  }
}

void InputRecorder::add_waiting(Layer& layer) {
  const std::int64_t width = layer.rows.dim(1);
  for (std::int64_t at = 0; at < width; at += kBand) {
    const float* rows = layer.rows.data() + at;
    const Tensor band = layer.moments.sum.slice(at, std::min(width, at + kBand));
    kernels::product(ctx_, {rows, width, true}, {rows, width}, layer.waiting, true,
                     band.columns(at, width));
  }
  layer.moments.rows += std::exchange(layer.waiting, 0);
}

std::vector<InputMoments> InputRecorder::take() {
  std::vector<InputMoments> all;
  for (Layer& layer : layers_) {
    if (!layer.rows) continue;
    if (layer.waiting > 0) add_waiting(layer);
    mirror(ctx_, layer.moments.sum);
    all.push_back(std::move(layer.moments));
  }
  layers_.clear();
  places_.clear();
  return all;
}

}  // namespace tessera
