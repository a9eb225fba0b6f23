#include <algorithm>

#include "core/error.h"
#include "core/kernels/matmul.h"
#include "core/layers.h"
#include "core/profile.h"

namespace tessera {
namespace {

/// `weight` as stored, and for int8 the scale of each row ([out, 1] f32).
struct StoredWeight {
  Tensor weight, scales;
};

StoredWeight read_weight(const Weights& w, std::int64_t out, std::int64_t in) {
  StoredWeight stored{w.get("weight", {out, in}), {}};
  if (stored.weight.dtype() == DType::i8) stored.scales = w.get("weight_scale", {out, 1}).to_f32();
  return stored;
}

Tensor read_bias(const Weights& w, std::int64_t out, Linear::Bias bias) {
  if (bias == Linear::Bias::none) return {};
  if (bias == Linear::Bias::optional && !w.has("bias")) return {};
  return w.get_f32("bias", {out});
}

/// A packed weight is not read from the file again: its pages need not stay in memory beside it.
void release_if_large(const Weights& w, std::size_t bytes) {
  if (bytes >= std::size_t{1} << 20) w.release_pages();
}

}  // namespace

struct Linear::Impl {
  kernels::PackedMatrix weight;
  Tensor bias;
};

Linear::Linear(const Weights& w, std::int64_t in, std::int64_t out, Bias bias) {
  const StoredWeight stored = read_weight(w, out, in);
  impl_ = std::make_shared<Impl>(
      Impl{kernels::PackedMatrix::pack(stored.weight, stored.scales), read_bias(w, out, bias)});
  release_if_large(w, stored.weight.nbytes());
}

Linear::Linear(const Tensor& weight, const Tensor& bias, const Tensor& scales)
    : impl_(std::make_shared<Impl>(
          Impl{kernels::PackedMatrix::pack(weight, scales), bias ? bias.to_f32() : bias})) {}

Linear Linear::conv1d(const Weights& w, std::int64_t in, std::int64_t out) {
  const Tensor stored = w.get("weight", {in, out});
  if (stored.dtype() == DType::i8) {
    throw UnsupportedError(tessera::concat(
        w.where("weight"), ": int8 is not supported for weights stored as [in, out]"));
  }
  const Tensor plain = stored.to_f32();
  Tensor transposed = Tensor::empty({out, in});
  for (std::int64_t i = 0; i < in; ++i) {
    for (std::int64_t o = 0; o < out; ++o)
      transposed.data()[o * in + i] = plain.data()[i * out + o];
  }
  return {transposed, w.has("bias") ? w.get_f32("bias", {out}) : Tensor()};
}

Linear Linear::concat(const std::vector<Weights>& parts, std::int64_t in,
                      const std::vector<std::int64_t>& outs) {
  std::int64_t total = 0;
  for (const std::int64_t out : outs) total += out;
  Tensor weight = Tensor::empty({total, in});
  Tensor bias = Tensor::zeros({total});
  bool any_bias = false;
  std::int64_t at = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Tensor rows = parts[i].get_f32("weight", {outs[i], in});
    std::copy_n(rows.data(), rows.numel(), weight.data() + at * in);
    if (const Tensor own = read_bias(parts[i], outs[i], Bias::optional)) {
      std::copy_n(own.data(), own.numel(), bias.data() + at);
      any_bias = true;
    }
    at += outs[i];
  }
  release_if_large(parts.front(), weight.nbytes());
  return {weight, any_bias ? bias : Tensor()};
}

std::int64_t Linear::in() const { return impl_->weight.k(); }
std::int64_t Linear::out() const { return impl_->weight.n(); }
std::int64_t Linear::bytes() const { return in() * out() * 4; }

Tensor Linear::operator()(Context& ctx, const Tensor& x, const LinearOptions& options) const {
  if (x.rank() != 2 || x.dim(1) != in() || x.stride(1) != 1) {
    throw ShapeError(
        tessera::concat("a linear layer of ", in(), " inputs was given ", x.shape().str()));
  }
  const StageScope scope(ctx, "linear",
                         {2.0 * static_cast<double>(x.dim(0) * in() * out()),
                          static_cast<double>(bytes()), in(), out()});
  Tensor y = ctx.empty({x.dim(0), out()});
  const bool fused = kernels::fuses(options.activation);
  const Tensor& residual = options.residual;
  if (residual && residual.shape() != y.shape()) {
    throw ShapeError(tessera::concat("a residual of ", residual.shape().str(), " for outputs ",
                                     y.shape().str()));
  }
  kernels::MatmulArguments a;
  a.x = x.data();
  a.ldx = std::max(x.stride(0), x.dim(1));
  a.m = x.dim(0);
  a.weight = &impl_->weight;
  a.bias = impl_->bias ? impl_->bias.data() : nullptr;
  a.activation = fused ? options.activation : Activation::none;
  a.residual = fused && residual ? residual.data() : nullptr;
  a.ldr = a.residual ? std::max(residual.stride(0), out()) : 0;
  a.y = y.data();
  a.ldy = out();
  kernels::matmul(ctx, a);
  if (fused) return y;
  y = activate(ctx, options.activation, y);
  return residual ? add(ctx, y, residual) : y;
}

}  // namespace tessera
