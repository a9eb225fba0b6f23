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

#if TESSERA_VECTOR_BYTES == 64
/// Parabolas beside GELU, one for each piece of numbers around i * kGeluPiece, by the low five bits
/// of i: off by 9.3e-5 at most, 2.4e-5 in the root mean square. What is beyond the last pieces
/// counts as x or as 0.
constexpr float kGeluPiece = 0.285f;
constexpr int kGeluEnd = 15;
struct GeluPieces {
  float square[32], linear[32], constant[32];
  constexpr GeluPieces(const float (&s)[kGeluEnd], const float (&l)[kGeluEnd],
                       const float (&c)[kGeluEnd])
      : square{}, linear{}, constant{} {
    for (int j = 0; j < 32; ++j) {
      const bool below = j > kGeluEnd;
      const int i = below ? 32 - j : j;
      const bool last = i >= kGeluEnd;
      const float line = last ? 1 : l[i];
      square[j] = last ? 0 : s[i];
      linear[j] = below ? 1 - line : line;  // gelu(-x) = gelu(x) - x
      constant[j] = last ? 0 : c[i];
    }
  }
};
alignas(64) constexpr GeluPieces
    kGeluPieces({0.39725995f, 0.36612019f, 0.28337786f, 0.17579597f, 0.073696382f, -0.0012853927f,
                 -0.041948263f, -0.053578489f, -0.047254559f, -0.034060072f, -0.021133946f,
                 -0.011563175f, -0.0056519266f, -0.0024875922f, -0.00099102466f},
                {0.5f, 0.51158243f, 0.58411485f, 0.73782158f, 0.9406755f, 1.1315144f, 1.2575022f,
                 1.2995446f, 1.271993f, 1.2079542f, 1.1380696f, 1.0809606f, 1.0423596f, 1.0199106f,
                 1.008448f},
                {6.8281929e-06f, -0.0010627883f, -0.017085405f, -0.072164975f, -0.1730921f,
                 -0.29463863f, -0.39228332f, -0.43027663f, -0.40026948f, -0.32254589f, -0.2280675f,
                 -0.14285938f, -0.079832956f, -0.040013049f, -0.018062085f});
/// Of its form with tanh.
alignas(64) constexpr GeluPieces
    kTanhGeluPieces({0.39725173f, 0.36597967f, 0.28305551f, 0.17563623f, 0.074094474f,
                     -0.00041068089f, -0.041195963f, -0.053479362f, -0.047886189f, -0.034922797f,
                     -0.021737056f, -0.011731049f, -0.0055078561f, -0.002244269f, -0.00078937068f},
                    {0.5f, 0.51163048f, 0.58431107f, 0.73776489f, 0.93949568f, 1.1291299f,
                     1.2555331f, 1.3000025f, 1.2755518f, 1.2126073f, 1.1413007f, 1.0815871f,
                     1.0409505f, 1.0178031f, 1.0066649f},
                    {6.861525e-06f, -0.0010671059f, -0.017120114f, -0.072101757f, -0.17246267f,
                     -0.29324746f, -0.39124259f, -0.43149123f, -0.4047752f, -0.32834664f,
                     -0.23192108f, -0.14281541f, -0.076468065f, -0.035419084f, -0.014099642f});

/// The same for what is rounded to 8 bits afterwards.
template <bool kTanh>
TESSERA_INLINE Vec gelu_coarse(Vec x) {
  const GeluPieces& pieces = kTanh ? kTanhGeluPieces : kGeluPieces;
  constexpr int kLeastSize = 2;  // the smaller size, and the sign of x
  const __m512 near =
      _mm512_maskz_range_ps(0xffff, (__m512)x, (__m512)splat(kGeluEnd * kGeluPiece), kLeastSize);
  const auto piece = (__m512i)((Vec)near * (1 / kGeluPiece) + kIntegersFrom);
  const auto pick = [&](const float* table) {
    return (Vec)_mm512_permutex2var_ps((__m512)load(table), piece, (__m512)load(table + kLanes));
  };
  return (pick(pieces.square) * x + pick(pieces.linear)) * x + pick(pieces.constant);
}
#endif

template <Activation kActivation, bool kCoarse = false>
TESSERA_INLINE Vec activated(Vec x) {
#if TESSERA_VECTOR_BYTES == 64
  if constexpr (kCoarse && kActivation == Activation::gelu) return gelu_coarse<false>(x);
  if constexpr (kCoarse && kActivation == Activation::gelu_tanh) return gelu_coarse<true>(x);
#endif
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
