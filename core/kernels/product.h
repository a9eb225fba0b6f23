#pragma once
#include <cstdint>

#include "core/activation.h"
#include "core/context.h"

namespace tessera::kernels {

/// A matrix as it lies in memory: rows one after the other, `stride` apart; `turned`: what is meant
/// is its transpose.
struct MatrixView {
  const float* data = nullptr;
  std::int64_t stride = 0;
  bool turned = false;
  const std::uint16_t* half = nullptr;  ///< instead of data, bf16 numbers; only of b, and turned
};

struct ProductArguments {
  std::int64_t m = 0, n = 0, k = 0;
  MatrixView a;                    // [m, k]
  MatrixView b;                    // [k, n]
  const float* bias = nullptr;     // [n] or null
  const float* initial = nullptr;  // [m, n], row stride ld_initial, or null; may be c
  std::int64_t ld_initial = 0;
  Activation activation = Activation::none;  // of the sum of all these; one that fuses()
  const float* residual = nullptr;           // added after it: [m, n], row stride ldr, or null
  std::int64_t ldr = 0;
  float* c = nullptr;  // [m, n], row stride ldc
  std::int64_t ldc = 0;
  bool rounded = false;  // a and b as bf16 numbers, where the machine multiplies these
};

/// c = act(a b + bias + initial) + residual, for matrices that change from call to call: nothing is
/// packed beforehand. The sums are formed in an order that follows from the shape alone.
void product(Context& ctx, const ProductArguments& arguments);
/// c [m, n] = a b, or += with `adds`, rounded as the context says. a [m, k], b [k, n].
void product(Context& ctx, const MatrixView& a, const MatrixView& b, std::int64_t k, bool adds,
             Tensor c);

}  // namespace tessera::kernels
