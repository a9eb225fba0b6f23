#include "core/linear_in_place.h"

#include <algorithm>

#include "core/kernels/product.h"
#include "core/tape.h"

namespace tessera {
namespace {

/// y = x W^T + bias + residual, for columns y of the output.
void multiply_part(Context& ctx, const InPlaceMatrix::Part& part, const Tensor& x,
                   const Tensor& residual, Tensor y) {
  kernels::product(ctx, {.m = x.dim(0),
                         .n = part.out(),
                         .k = part.in(),
                         .a = {x.data(), x.stride(0), false},
                         .b = {part.weight.data(), part.weight.stride(0), !part.inputs_first},
                         .bias = part.bias ? part.bias.data() : nullptr,
                         .initial = residual ? residual.data() : nullptr,
                         .ld_initial = residual ? residual.stride(0) : 0,
                         .c = y.data(),
                         .ldc = y.stride(0)});
  if (ctx.tape) {
    ctx.tape->record({.op = Op::linear,
                      .inputs = {x, part.weight, part.bias, residual},
                      .output = y,
                      .inputs_first = part.inputs_first});
  }
}

}  // namespace

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
