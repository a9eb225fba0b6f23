#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/kernels/vector.h"
#include "core/layers.h"
#include "core/profile.h"
#include "core/tape.h"

// Frequencies and angles are computed in float, step by step as HF transformers (PyTorch) does: at
// position 100,000 the last bit of a frequency moves the angle by 0.006.
namespace tessera {
namespace {

constexpr std::int64_t kRowsPerTask = 16;

/// Where a config describes its rotary positions: older ones in rope_scaling, else rope_parameters.
Config find_parameters(const Config& config) {
  const Config old = config.child("rope_scaling");
  return old.size() > 0 ? old : config.child("rope_parameters");
}

float positive(const Config& rope, std::string_view key, double value) {
  if (!(value > 0 && std::isfinite(value))) {
    throw FormatError(
        concat(rope.where(), ": ", key, ": ", value, "; expected a finite number above 0"));
  }
  return static_cast<float>(value);
}

float positive(const Config& rope, std::string_view key) {
  return positive(rope, key, rope.number(key));
}

/// Llama 3.1's way to longer contexts: wavelengths that fit often into the old context stay, those
/// that do not fit are stretched by `factor`, and between the two it goes over smoothly.
void stretch_long_waves(const Config& config, const Config& rope, Tensor& frequencies) {
  constexpr float kTurn = 6.283185307179586f;
  const float factor = positive(rope, "factor"), low = positive(rope, "low_freq_factor"),
              high = positive(rope, "high_freq_factor");
  const auto context = static_cast<float>(
      rope.bounded("original_max_position_embeddings",
                   config.bounded("max_position_embeddings", 2048, 1, 1 << 30), 1, 1 << 30));
  if (high <= low) {
    throw FormatError(
        concat(rope.where(), ": high_freq_factor ", high, " is not above low_freq_factor ", low));
  }
  for (std::int64_t i = 0; i < frequencies.numel(); ++i) {
    float& f = frequencies.data()[i];
    const float wave = 1.0f / f * kTurn;
    if (wave > context / low) {
      f /= factor;
    } else if (wave >= context / high) {
      const float smooth = (1.0f / wave * context - low) / (high - low);
      f = (1.0f - smooth) * f / factor + smooth * f;
    }
  }
}

}  // namespace

Rope::Rope(const Config& config, std::int64_t head_width) {
  const Config rope = find_parameters(config);
  if (head_width < 2 || head_width % 2 != 0) {
    throw FormatError(concat(config.where(), ": rotary positions turn pairs of numbers; a head of ",
                             head_width, " is not an even number of them"));
  }
  for (const Config& place : {config, rope}) {
    if (const double share = place.number("partial_rotary_factor", 1.0); share != 1.0) {
      throw UnsupportedError(concat(place.where(), ": partial_rotary_factor ", share,
                                    "; only whole heads are turned here"));
    }
  }
  const float theta =
      positive(rope, "rope_theta", rope.number("rope_theta", config.number("rope_theta", 10000.0)));
  frequencies = Tensor::empty({head_width / 2});
  for (std::int64_t i = 0; i < frequencies.numel(); ++i) {
    const float share = static_cast<float>(2 * i) / static_cast<float>(head_width);
    frequencies.data()[i] = 1.0f / std::pow(theta, share);
  }
  const std::string type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "linear") {
    const float factor = positive(rope, "factor");
    for (std::int64_t i = 0; i < frequencies.numel(); ++i) frequencies.data()[i] /= factor;
  } else if (type == "llama3") {
    stretch_long_waves(config, rope, frequencies);
  } else if (type != "default") {
    throw UnsupportedError(concat(rope.where(), ": rope_type \"", type,
                                  "\" is not known; known are default, linear, llama3"));
  }
}

Tensor Rope::angles(Context& ctx, std::span<const std::int64_t> positions) const {
  const auto count = static_cast<std::int64_t>(positions.size());
  const std::int64_t half = frequencies.dim(0);
  const StageScope scope(ctx, "rope");
  Tensor table = ctx.empty({count, 2 * half});
  ctx.parallel_for((count + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(count, (task + 1) * kRowsPerTask);
    for (std::int64_t r = task * kRowsPerTask; r < end; ++r) {
      float* cos = table.data() + r * 2 * half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float angle =
            static_cast<float>(positions[static_cast<std::size_t>(r)]) * frequencies.data()[i];
        cos[i] = std::cos(angle);
        cos[half + i] = std::sin(angle);
      }
    }
  });
  return table;
}

Tensor Rope::operator()(Context& ctx, const Tensor& x, const Tensor& angles) const {
  const std::int64_t half = frequencies.dim(0), width = 2 * half;
  if (x.rank() != 2 || x.stride(1) != 1 || x.dim(1) % width != 0 || angles.rank() != 2 ||
      angles.dim(0) != x.dim(0) || angles.dim(1) != width) {
    throw ShapeError(concat("rotary positions of heads of ", width, " were given rows ",
                            x.shape().str(), " and angles ", angles.shape().str()));
  }
  const StageScope scope(ctx, "rope");
  Tensor y = ctx.empty(x.shape());
  const auto& kernels = kernels::vector_kernels();
  const std::int64_t rows = x.dim(0);
  ctx.parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t task) {
    const std::int64_t end = std::min(rows, (task + 1) * kRowsPerTask);
    for (std::int64_t r = task * kRowsPerTask; r < end; ++r) {
      const float* cos = angles.data() + r * angles.stride(0);
      for (std::int64_t c = 0; c < x.dim(1); c += width) {
        kernels.rotate(x.data() + r * x.stride(0) + c, cos, cos + half, half,
                       y.data() + r * x.dim(1) + c);
      }
    }
  });
  if (ctx.tape) ctx.tape->record({.op = Op::rope, .inputs = {x, angles}, .output = y});
  return y;
}

}  // namespace tessera
