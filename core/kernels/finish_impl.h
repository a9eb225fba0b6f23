// Bias, activation and residual of a product in one pass; see vector.h.
#pragma once
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

TESSERA_INLINE Vec positive(Vec x) { return x < 0.0f ? -x : x; }

/// 1 / (1 + e^-x), through e^-|x| <= 1.
TESSERA_INLINE Vec logistic(Vec x) {
  const Vec e = exp_negative(-positive(x));
  return (x < 0.0f ? e : splat(1.0f)) / (e + 1.0f);
}

/// x * Phi(x); half of erfc(|x| / sqrt 2) by Abramowitz and Stegun, 7.1.26 (absolute error 1.5e-7).
TESSERA_INLINE Vec gelu_of(Vec x) {
  const Vec z = positive(x) * 0.70710678118654752f;
  const Vec t = 1.0f / (z * 0.3275911f + 1.0f);
  Vec p = splat(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Vec tail = x * (p * t * exp_negative(-z * z) * 0.5f);
  return x < 0.0f ? tail : x - tail;
}

/// The same to 1.2e-4, for what is rounded to 8 bits afterwards: max(x, 0) less |x| * Phi(-|x|),
/// a polynomial of |x| up to 4.25. `kTanh`: its form with tanh.
template <bool kTanh>
TESSERA_INLINE Vec gelu_coarse(Vec x) {
  constexpr int kTerms = 10;
  constexpr float kErf[kTerms] = {3.13969235e-05f,  -5.01469207e-04f, 2.55366248e-03f,
                                  -2.58831226e-04f, -4.15392881e-02f, 1.31737974e-01f,
                                  -5.06125687e-02f, -3.80269027e-01f, 4.97406602e-01f,
                                  5.88959592e-05f},
                  kOfTanh[kTerms] = {2.79350493e-05f,  -4.38857522e-04f, 2.10401787e-03f,
                                     1.34141199e-03f,  -4.43509290e-02f, 1.33626584e-01f,
                                     -5.02832780e-02f, -3.80861893e-01f, 4.97547919e-01f,
                                     5.44108034e-05f};
  const float* terms = kTanh ? kOfTanh : kErf;
  const Vec size = positive(x), a = size < 4.25f ? size : splat(4.25f);
  Vec p = splat(terms[0]);
#pragma GCC unroll 16
  for (int i = 1; i < kTerms; ++i) p = p * a + terms[i];
  return larger(x, Vec{}) - p;
}

template <Activation kActivation, bool kCoarse = false>
TESSERA_INLINE Vec activated(Vec x) {
  if constexpr (kCoarse && kActivation == Activation::gelu) return gelu_coarse<false>(x);
  if constexpr (kCoarse && kActivation == Activation::gelu_tanh) return gelu_coarse<true>(x);
  if constexpr (kActivation == Activation::relu) return x < 0.0f ? Vec{} : x;
  if constexpr (kActivation == Activation::gelu) return gelu_of(x);
  if constexpr (kActivation == Activation::gelu_tanh)
    return x * logistic((x + x * x * x * 0.044715f) * 1.59576912160573073f);
  if constexpr (kActivation == Activation::quick_gelu) return x * logistic(x * 1.702f);
  if constexpr (kActivation == Activation::silu) return x * logistic(x);
  if constexpr (kActivation == Activation::sigmoid) return logistic(x);
  return x;
}

/// The first n numbers of p, zeros behind.
TESSERA_INLINE Vec load_some(const float* p, std::int64_t n) {
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <Activation kActivation, bool kCoarse = false>
void finish_as(const Finish& f) {
  const std::int64_t whole = f.n / kLanes * kLanes, rest = f.n - whole;
  for (std::int64_t r = 0; r < f.m; ++r) {
    const float *sums = f.sums + r * f.lds,
                *residual = f.residual ? f.residual + r * f.ldr : nullptr;
    float* y = f.y + r * f.ldy;
    for (std::int64_t c = 0; c < whole; c += kLanes) {
      Vec v = load(sums + c);
      if (f.bias) v += load(f.bias + c);
      v = activated<kActivation, kCoarse>(v);
      store(y + c, residual ? v + load(residual + c) : v);
    }
    if (rest == 0) continue;
    Vec v = load_some(sums + whole, rest);
    if (f.bias) v += load_some(f.bias + whole, rest);
    v = activated<kActivation, kCoarse>(v);
    if (residual) v += load_some(residual + whole, rest);
    for (std::int64_t i = 0; i < rest; ++i) y[whole + i] = v[i];
  }
}

void finish(const Finish& f) {
  switch (f.activation) {
    case Activation::relu:
      return finish_as<Activation::relu>(f);
    case Activation::gelu:
      return f.coarse ? finish_as<Activation::gelu, true>(f) : finish_as<Activation::gelu>(f);
    case Activation::gelu_tanh:
      return f.coarse ? finish_as<Activation::gelu_tanh, true>(f)
                      : finish_as<Activation::gelu_tanh>(f);
    case Activation::quick_gelu:
      return finish_as<Activation::quick_gelu>(f);
    case Activation::silu:
      return finish_as<Activation::silu>(f);
    case Activation::sigmoid:
      return finish_as<Activation::sigmoid>(f);
    default:
      return finish_as<Activation::none>(f);
  }
}

}  // namespace
}  // namespace tessera::kernels
