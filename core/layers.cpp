#include "core/layers.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/kernels/convert.h"
#include "core/kernels/dropout.h"
#include "core/kernels/matmul.h"
#include "core/kernels/reference.h"
#include "core/kernels/vector.h"
#include "core/profile.h"
#include "core/tape.h"

namespace tessera {
namespace {

/// Rows that one task takes; fixed, so that results do not depend on the number of threads.
constexpr std::int64_t kRowsPerTask = 64;
constexpr std::int64_t kElementsPerTask = 1 << 16;

void check_width(const Tensor& x, std::int64_t width, const char* layer) {
  if (x.rank() != 2 || x.dim(1) != width || x.stride(1) != 1) {
    throw ShapeError(concat(layer, " of width ", width, " was given ", x.shape().str()));
  }
}

/// [Cout, Cin, K...] -> [Cout, K..., Cin] for the first and only spatial dimension.
Tensor channels_last(const Tensor& weight) {
  const std::int64_t out = weight.dim(0), in = weight.dim(1), kernel = weight.dim(2);
  Tensor turned = Tensor::empty({out, kernel * in});
  for (std::int64_t o = 0; o < out; ++o) {
    for (std::int64_t j = 0; j < kernel; ++j) {
      for (std::int64_t c = 0; c < in; ++c) {
        turned.data()[(o * kernel + j) * in + c] = weight.data()[(o * in + c) * kernel + j];
      }
    }
  }
  return turned;
}

/// One frame's channels to every step-th place; zeros where there is no frame.
void copy_frame(const float* from, std::int64_t channels, std::int64_t step, float* to) {
  if (step > 1) {
    for (std::int64_t c = 0; c < channels; ++c) to[c * step] = from ? from[c] : 0.0f;
  } else if (from) {
    std::copy_n(from, channels, to);
  } else {
    std::fill_n(to, channels, 0.0f);
  }
}

using ElementKernel = void (*)(const float* a, const float* b, std::int64_t n, float* y);

Tensor by_element(Context& ctx, const Tensor& a, const Tensor& b, Op op, const char* what,
                  ElementKernel kernel) {
  if (a.shape() != b.shape())
    throw ShapeError(concat("can't ", what, " ", a.shape().str(), " and ", b.shape().str()));
  const StageScope scope(ctx, what);
  const Tensor left = a.to_f32(), right = b.to_f32();  // contiguous
  Tensor y = ctx.empty(a.shape());
  in_pieces(ctx, a.numel(), kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    kernel(left.data() + begin, right.data() + begin, end - begin, y.data() + begin);
  });
  if (ctx.tape) ctx.tape->record({.op = op, .inputs = {a, b}, .output = y});
  return y;
}

StageWork conv_work(const Linear& weight, std::int64_t positions) {
  return {2.0 * static_cast<double>(positions * weight.in() * weight.out()),
          static_cast<double>(weight.bytes()), weight.in(), weight.out()};
}

}  // namespace

Activation activation_from_name(std::string_view name) {
  using enum Activation;
  static constexpr std::pair<std::string_view, Activation> kNames[] = {
      {"gelu", gelu},
      {"gelu_python", gelu},
      {"gelu_new", gelu_tanh},
      {"gelu_fast", gelu_tanh},
      {"gelu_pytorch_tanh", gelu_tanh},
      {"gelu_python_tanh", gelu_tanh},
      {"gelu_accurate", gelu_tanh},
      {"quick_gelu", quick_gelu},
      {"relu", relu},
      {"relu2", relu_squared},
      {"silu", silu},
      {"swish", silu},
      {"tanh", tanh},
      {"sigmoid", sigmoid},
      {"mish", mish},
      {"linear", none}};
  std::string known;
  for (const auto& [key, value] : kNames) {
    if (key == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(key);
  }
  throw UnsupportedError(
      concat("activation function \"", name, "\" is not known; known are ", known));
}

LayerNorm::LayerNorm(const Weights& w, std::int64_t width, double epsilon)
    : weight(w.get_f32("weight", {width})),
      bias(w.get_f32("bias", {width})),
      eps(static_cast<float>(epsilon)) {}

void LayerNorm::check(const Tensor& x) const { check_width(x, weight.dim(0), "LayerNorm"); }

Tensor LayerNorm::operator()(Context& ctx, const Tensor& x) const {
  check(x);
  const StageScope scope(ctx, "norm");
  Tensor y = ctx.empty(x.shape());
  const auto& kernels = kernels::vector_kernels();
  in_pieces(ctx, x.dim(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      kernels.layer_norm(x.data() + i * x.stride(0), weight.data(), bias.data(), eps, x.dim(1),
                         y.data() + i * x.dim(1));
    }
  });
  if (ctx.tape) {
    ctx.tape->record(
        {.op = Op::layer_norm, .inputs = {x, weight, bias}, .output = y, .number = eps});
  }
  return y;
}

RmsNorm::RmsNorm(const Weights& w, std::int64_t width, double epsilon)
    : weight(w.get_f32("weight", {width})), eps(static_cast<float>(epsilon)) {}

Tensor RmsNorm::operator()(Context& ctx, const Tensor& x) const {
  check_width(x, weight.dim(0), "RmsNorm");
  const StageScope scope(ctx, "norm");
  Tensor y = ctx.empty(x.shape());
  const auto& kernels = kernels::vector_kernels();
  in_pieces(ctx, x.dim(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      kernels.rms_norm(x.data() + i * x.stride(0), weight.data(), eps, x.dim(1),
                       y.data() + i * x.dim(1));
    }
  });
  if (ctx.tape)
    ctx.tape->record({.op = Op::rms_norm, .inputs = {x, weight}, .output = y, .number = eps});
  return y;
}

RmsNorm unit_norm(std::int64_t width) {
  RmsNorm norm;
  norm.eps = 1e-12f;
  norm.weight = Tensor::empty({width});
  std::fill_n(norm.weight.data(), width, 1 / std::sqrt(static_cast<float>(width)));
  return norm;
}

Embedding::Embedding(const Weights& w, std::int64_t count, std::int64_t width)
    : table(w.get("weight", {count, width})), precision(w.precision()) {
  if (table.dtype() == DType::i8) {
    scales = w.get("weight_scale", {count, 1}).to_f32();
  } else {
    w.note_matrix("weight", int8_at_least(precision));
  }
}

Tensor gather_rows(Context& ctx, const Tensor& table, std::span<const std::int32_t> ids) {
  const std::int64_t count = table.dim(0), width = table.dim(1);
  Tensor rows = ctx.empty({static_cast<std::int64_t>(ids.size()), width});
  float* to = rows.data();
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= count) {
      throw ArgumentError(
          concat("token id ", id, " is outside the vocabulary of ", count, " tokens"));
    }
    convert_to_f32(table[id].raw(), table.dtype(), to, width);
    to += width;
  }
  if (ctx.tape) {
    ctx.tape->record({.op = Op::gather_rows,
                      .inputs = {table},
                      .output = rows,
                      .ids = {ids.begin(), ids.end()}});
  }
  return rows;
}

Tensor Embedding::operator()(Context& ctx, std::span<const std::int32_t> ids) const {
  const StageScope scope(ctx, "embedding");
  Tensor rows = gather_rows(ctx, table, ids);
  if (!scales) return rows;
  float* to = rows.data();
  for (const std::int32_t id : ids) {
    std::for_each(to, to + rows.dim(1), [s = scales.data()[id]](float& x) { x *= s; });
    to += rows.dim(1);
  }
  return rows;
}

Linear Embedding::as_linear() const { return {table, {}, int8_at_least(precision), scales}; }

namespace {

/// Of a convolution: everything that follows depends on it, and it takes little time, so 8 bits are
/// too few where bf16 is fast. Where only VNNI is, which gives activations 7 bits too (12
/// elsewhere), f32 would take three times as long, and Whisper's word error rate is no worse for
/// it.
Precision of_convolution(Precision p) {
  const bool rounds = p == Precision::int8 || p == Precision::automatic;
  return rounds && kernels::vector_kernels().half.native ? Precision::bf16 : p;
}

}  // namespace

Conv1d::Conv1d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel_size,
               std::int64_t step, std::int64_t pad)
    : channels_in(in),
      kernel(kernel_size),
      stride(step),
      padding(pad),
      channels_first(w.precision() == Precision::in_place) {
  const Tensor plain = w.get_f32("weight", {out, in, kernel_size});
  weight = Linear(channels_first ? plain.reshape({out, in * kernel_size}) : channels_last(plain),
                  w.get_f32("bias", {out}), of_convolution(w.precision()));
}

Tensor Conv1d::operator()(Context& ctx, const Tensor& x, Activation activation) const {
  check_width(x, channels_in, "Conv1d");
  const std::int64_t frames = x.dim(0), count = (frames + 2 * padding - kernel) / stride + 1;
  if (frames + 2 * padding < kernel) {
    throw ShapeError(concat("Conv1d with a kernel of ", kernel, " was given ", frames, " frames"));
  }
  const StageScope scope(ctx, "convolution", conv_work(weight, count));
  const Tensor all =
      weight.rounds() && !ctx.tape ? overlapping(ctx, x, count) : separate(ctx, x, count);
  return weight(ctx, all, {.activation = activation});
}

/// Windows as views of the frames with zeros around them, which are copied once.
Tensor Conv1d::overlapping(Context& ctx, const Tensor& x, std::int64_t count) const {
  const std::int64_t frames = x.dim(0), all = frames + 2 * padding;
  Tensor padded = ctx.empty({all, channels_in});
  in_pieces(ctx, all, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t at = t - padding;
      copy_frame(at < 0 || at >= frames ? nullptr : x.data() + at * x.stride(0), channels_in, 1,
                 padded.data() + t * channels_in);
    }
  });
  return padded.windows(count, kernel * channels_in, stride * channels_in);
}

/// Windows one after the other.
Tensor Conv1d::separate(Context& ctx, const Tensor& x, std::int64_t count) const {
  const std::int64_t frames = x.dim(0);
  Tensor windows = ctx.empty({count, kernel * channels_in});
  const std::int64_t channel_step = channels_first ? kernel : 1;
  in_pieces(ctx, count, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t j = 0; j < kernel; ++j) {
        const std::int64_t at = t * stride + j - padding;
        const float* from = at < 0 || at >= frames ? nullptr : x.data() + at * x.stride(0);
        copy_frame(
            from, channels_in, channel_step,
            windows.data() + t * kernel * channels_in + j * (channels_first ? 1 : channels_in));
      }
    }
  });
  if (ctx.tape) {
    ctx.tape->record({.op = Op::windows,
                      .inputs = {x},
                      .output = windows,
                      .window = {kernel, stride, padding, channels_first}});
  }
  return windows;
}

Conv2d::Conv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t patch_size,
               Linear::Bias bias)
    : weight(w.get_f32("weight", {out, in, patch_size, patch_size})
                 .reshape({out, in * patch_size * patch_size}),
             bias == Linear::Bias::required ? w.get_f32("bias", {out}) : Tensor(), w.precision()),
      channels_in(in),
      patch(patch_size) {}

Tensor Conv2d::operator()(Context& ctx, const Tensor& x) const {
  if (x.rank() != 3 || x.dim(0) != channels_in || x.dim(1) < patch || x.dim(2) < patch ||
      !x.is_contiguous()) {
    throw ShapeError(concat("patch embedding of ", channels_in, " channels and patches of ", patch,
                            " was given ", x.shape().str()));
  }
  const std::int64_t high = x.dim(1) / patch, wide = x.dim(2) / patch,
                     width = channels_in * patch * patch;
  const StageScope scope(ctx, "patches", conv_work(weight, high * wide));
  Tensor patches = ctx.empty({high * wide, width});
  in_pieces(ctx, high * wide, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* corner = x.data() + (i / wide) * patch * x.dim(2) + (i % wide) * patch;
      float* to = patches.data() + i * width;
      for (std::int64_t c = 0; c < channels_in; ++c) {
        for (std::int64_t row = 0; row < patch; ++row, to += patch) {
          std::copy_n(corner + (c * x.dim(1) + row) * x.dim(2), patch, to);
        }
      }
    }
  });
  if (ctx.tape) {
    ctx.tape->record(
        {.op = Op::patches, .inputs = {x}, .output = patches, .window = {.kernel = patch}});
  }
  return weight(ctx, patches);
}

Tensor activate(Context& ctx, Activation activation, const Tensor& x) {
  const StageScope scope(ctx, "activation");
  const Tensor source = x.to_f32();
  Tensor y = ctx.empty(x.shape());
  in_pieces(ctx, x.numel(), kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    if (kernels::fuses(activation)) {
      kernels::vector_kernels().training.activate(activation, source.data() + begin, end - begin,
                                                  y.data() + begin);
      return;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      y.data()[i] = kernels::reference::activate(activation, source.data()[i]);
    }
  });
  if (ctx.tape)
    ctx.tape->record({.op = Op::activate, .inputs = {x}, .output = y, .activation = activation});
  return y;
}

Tensor add(Context& ctx, const Tensor& a, const Tensor& b) {
  return by_element(ctx, a, b, Op::add, "add", kernels::vector_kernels().add);
}

Tensor join_rows(Context& ctx, const std::vector<Tensor>& parts) {
  if (parts.size() == 1) return parts.front();
  std::int64_t rows = 0;
  for (const Tensor& part : parts) {
    check_width(part, parts.front().dim(1), "join_rows");
    rows += part.dim(0);
  }
  const std::int64_t width = parts.front().dim(1);
  Tensor all = ctx.empty({rows, width});
  float* to = all.data();
  for (const Tensor& part : parts) {
    for (std::int64_t i = 0; i < part.dim(0); ++i)
      to = std::copy_n(part.data() + i * part.stride(0), width, to);
  }
  if (ctx.tape) ctx.tape->record({.op = Op::join_rows, .inputs = parts, .output = all});
  return all;
}

Tensor scaled(Context& ctx, const Tensor& x, float factor) {
  Tensor factors = ctx.empty(x.shape());
  std::fill_n(factors.data(), factors.numel(), factor);
  return multiply(ctx, x, factors);
}

Tensor dropout(Context& ctx, const Tensor& x, float p) {
  if (!ctx.tape || p <= 0) return x;
  if (p >= 1) throw ArgumentError(concat("dropout of ", p, "; expected a share below 1"));
  const StageScope scope(ctx, "dropout");
  const std::uint64_t stream = ctx.tape->next_stream();
  const kernels::Dropout dropped = kernels::dropout_of(stream, p, 0);
  const Tensor source = x.to_f32();
  Tensor y = ctx.empty(x.shape());
  in_pieces(ctx, x.numel(), kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      y.data()[i] = source.data()[i] * kernels::factor_at(dropped, i);
  });
  ctx.tape->record({.op = Op::dropout, .inputs = {x}, .output = y, .number = p, .stream = stream});
  return y;
}

Tensor multiply(Context& ctx, const Tensor& a, const Tensor& b) {
  return by_element(ctx, a, b, Op::multiply, "multiply", kernels::vector_kernels().multiply);
}

}  // namespace tessera
