#include "core/linear_in_place.h"

#include <algorithm>

#include "core/kernels/product.h"
#include "core/tape.h"

namespace tessera {
namespace {

struct Matrix {
  const Tensor& weight;
  bool inputs_first = false;
  Tensor bias = {};
};

/// y = x W^T + bias + residual, for columns y of the output.
void multiply(Context& ctx, const Matrix& matrix, const Tensor& x, const Tensor& residual,
              Tensor y) {
  const auto& [weight, inputs_first, bias] = matrix;
  kernels::product(ctx, {.m = x.dim(0),
                         .n = y.dim(1),
                         .k = x.dim(1),
                         .a = {x.data(), x.stride(0), false},
                         .b = {weight.data(), weight.stride(0), !inputs_first},
                         .bias = bias ? bias.data() : nullptr,
                         .initial = residual ? residual.data() : nullptr,
                         .ld_initial = residual ? residual.stride(0) : 0,
                         .c = y.data(),
                         .ldc = y.stride(0),
                         .rounded = ctx.rounded_products});
  if (ctx.tape) {
    ctx.tape->record({.op = Op::linear,
                      .inputs = {x, weight, bias, residual},
                      .output = y,
                      .inputs_first = inputs_first});
  }
}

void multiply_part(Context& ctx, const InPlaceMatrix::Part& part, const Tensor& x,
                   const Tensor& residual, const Tensor& y) {
  const Matrix own{part.weight, part.inputs_first, part.bias};
  if (!part.lora) return multiply(ctx, own, x, residual, y);
  const InPlaceMatrix::Lora& lora = *part.lora;
  const Tensor base = ctx.empty({x.dim(0), part.out()});
  multiply(ctx, own, x, residual, base);
  const Tensor low = ctx.empty({x.dim(0), lora.a.dim(0)});
  multiply(ctx, {lora.a}, dropout(ctx, x, lora.dropout), {}, low);
  multiply(ctx, {lora.b}, scaled(ctx, low, lora.scale), base, y);
}

}  // namespace

std::optional<InPlaceMatrix::Lora> InPlaceMatrix::Lora::read(const Weights& layer, std::int64_t in,
                                                             std::int64_t out) {
  if (!layer.has("lora_A.weight")) return std::nullopt;
  const std::int64_t rank = layer.get("lora_A.weight").dim(0);
  return Lora{layer.get_f32("lora_A.weight", {rank, in}),
              layer.get_f32("lora_B.weight", {out, rank}),
              layer.has("lora_scale") ? layer.get_f32("lora_scale", {1}).data()[0] : 1,
              layer.has("lora_dropout") ? layer.get_f32("lora_dropout", {1}).data()[0] : 0};
}

std::int64_t InPlaceMatrix::out() const {
  std::int64_t sum = 0;
  for (const Part& part : parts) sum += part.out();
  return sum;
}

Tensor InPlaceMatrix::operator()(Context& ctx, const Tensor& x,
                                 const LinearOptions& options) const {
  Tensor y = ctx.empty({x.dim(0), out()});
  const bool drops = ctx.tape && options.dropout > 0;
  const bool last = options.activation == Activation::none && !drops;  // before the residual
  std::int64_t at = 0;
  for (const Part& part : parts) {
    const std::int64_t end = at + part.out();
    const Tensor residual = last && options.residual ? options.residual.columns(at, end) : Tensor();
    multiply_part(ctx, part, x, residual, y.columns(at, end));
    at = end;
  }
  if (last) return y;
  if (options.activation != Activation::none) y = activate(ctx, options.activation, y);
  y = dropout(ctx, y, options.dropout);
  return options.residual ? add(ctx, y, options.residual) : y;
}

}  // namespace tessera
