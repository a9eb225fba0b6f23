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
  return (x < 0.0f ? Vec{} : x) - p;  // NaN stays NaN
}

/// The same to 2e-6, for what is rounded to bf16: a polynomial of 0.4 |x| - 1 up to 5.
template <bool kTanh>
TESSERA_INLINE Vec gelu_near(Vec x) {
  constexpr int kTerms = 14;
  constexpr float kErf[kTerms] = {-0.024476273f,  0.00677323528f, 0.128551647f,  -0.0911653787f,
                                  -0.247765765f,  0.343794644f,   0.0751871169f, -0.490063071f,
                                  0.41955781f,    -0.0175457802f, -0.257033765f, 0.232680619f,
                                  -0.0940200537f, 0.0155252535f},
                  kOfTanh[kTerms] = {-0.018581925f,  -0.000234929568f, 0.105063833f,
                                     -0.0617091283f, -0.211504146f,    0.292860419f,
                                     0.0495190211f,  -0.44400534f,     0.425741613f,
                                     -0.0401105434f, -0.255356193f,    0.23811236f,
                                     -0.0948820934f, 0.0150857549f};
  const float* terms = kTanh ? kOfTanh : kErf;
  const Vec size = positive(x), u = (size < 5.0f ? size : splat(5.0f)) * 0.4f - 1.0f;
  Vec p = splat(terms[0]);
#pragma GCC unroll 16
  for (int i = 1; i < kTerms; ++i) p = p * u + terms[i];
  return (x < 0.0f ? Vec{} : x) - p;  // NaN stays NaN
}

template <Activation kActivation, Nearness kNearness = Nearness::exact>
TESSERA_INLINE Vec activated(Vec x) {
  constexpr bool kTanh = kActivation == Activation::gelu_tanh;
  if constexpr (kTanh || kActivation == Activation::gelu) {
    if constexpr (kNearness == Nearness::of_bytes) return gelu_coarse<kTanh>(x);
    if constexpr (kNearness == Nearness::of_bf16) return gelu_near<kTanh>(x);
  }
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

template <Activation kActivation, Nearness kNearness = Nearness::exact>
void finish_as(const Finish& f) {
  const std::int64_t whole = f.n / kLanes * kLanes, rest = f.n - whole;
  for (std::int64_t r = 0; r < f.m; ++r) {
    const float *sums = f.sums + r * f.lds,
                *residual = f.residual ? f.residual + r * f.ldr : nullptr;
    float* y = f.y + r * f.ldy;
    for (std::int64_t c = 0; c < whole; c += kLanes) {
      Vec v = load(sums + c);
      if (f.bias) v += load(f.bias + c);
      v = activated<kActivation, kNearness>(v);
      store(y + c, residual ? v + load(residual + c) : v);
    }
    if (rest == 0) continue;
    Vec v = load_some(sums + whole, rest);
    if (f.bias) v += load_some(f.bias + whole, rest);
    v = activated<kActivation, kNearness>(v);
    if (residual) v += load_some(residual + whole, rest);
    for (std::int64_t i = 0; i < rest; ++i) y[whole + i] = v[i];
  }
}

template <Activation kActivation>
void finish_gelu(const Finish& f) {
  if (f.nearness == Nearness::of_bytes) return finish_as<kActivation, Nearness::of_bytes>(f);
  if (f.nearness == Nearness::of_bf16) return finish_as<kActivation, Nearness::of_bf16>(f);
  finish_as<kActivation>(f);
}

void finish(const Finish& f) {
  switch (f.activation) {
    case Activation::relu:
      return finish_as<Activation::relu>(f);
    case Activation::gelu:
      return finish_gelu<Activation::gelu>(f);
    case Activation::gelu_tanh:
      return finish_gelu<Activation::gelu_tanh>(f);
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
