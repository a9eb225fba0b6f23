// Gradients of element-wise functions, norms and the loss, and the optimiser's step; see
// training.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

TESSERA_INLINE float root(float x) { return __builtin_sqrtf(x); }

/// d act(x) / dx
template <Activation kActivation>
TESSERA_INLINE Vec slope(Vec x) {
  if constexpr (kActivation == Activation::relu) return x > 0.0f ? splat(1.0f) : Vec{};
  if constexpr (kActivation == Activation::gelu) {
    const Vec density = exp_negative(x * x * -0.5f) * 0.39894228040143267f;
    const Vec magnitude = positive(x), share = gelu_of(magnitude) / (magnitude + 1e-30f);
    const Vec below = magnitude < 1e-20f ? splat(0.5f) : share;  // Phi(|x|)
    return (x < 0.0f ? 1.0f - below : below) + x * density;
  }
  if constexpr (kActivation == Activation::gelu_tanh) {
    const Vec square = x * x;
    const Vec s = logistic(x * (square * 0.044715f + 1.0f) * 1.59576912160573073f);
    return s + x * s * (1.0f - s) * (square * 0.134145f + 1.0f) * 1.59576912160573073f;
  }
  if constexpr (kActivation == Activation::quick_gelu) {
    const Vec s = logistic(x * 1.702f);
    return s + x * s * (1.0f - s) * 1.702f;
  }
  if constexpr (kActivation == Activation::silu) {
    const Vec s = logistic(x);
    return s + x * s * (1.0f - s);
  }
  if constexpr (kActivation == Activation::sigmoid) {
    const Vec s = logistic(x);
    return s * (1.0f - s);
  }
  return splat(1.0f);
}

template <Activation kActivation>
void activate_as(const float* x, std::int64_t n, float* y) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes)
    store(y + i, activated<kActivation>(load(x + i)));
  const Vec rest = activated<kActivation>(load_some(x + whole, n - whole));
  for (std::int64_t i = whole; i < n; ++i) y[i] = rest[i - whole];
}

template <Activation kActivation>
void activate_gradient_as(const float* x, const float* dy, const float* initial, std::int64_t n,
                          float* dx) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Vec d = load(dy + i) * slope<kActivation>(load(x + i));
    store(dx + i, initial ? load(initial + i) + d : d);
  }
  const Vec rest = slope<kActivation>(load_some(x + whole, n - whole));
  for (std::int64_t i = whole; i < n; ++i)
    dx[i] = (initial ? initial[i] : 0.0f) + dy[i] * rest[i - whole];
}

/// Calls visit with the activation as a constant.
#define TESSERA_FOR_ACTIVATION(function, ...)               \
  switch (activation) {                                     \
    case Activation::relu:                                  \
      return function<Activation::relu>(__VA_ARGS__);       \
    case Activation::gelu:                                  \
      return function<Activation::gelu>(__VA_ARGS__);       \
    case Activation::gelu_tanh:                             \
      return function<Activation::gelu_tanh>(__VA_ARGS__);  \
    case Activation::quick_gelu:                            \
      return function<Activation::quick_gelu>(__VA_ARGS__); \
    case Activation::silu:                                  \
      return function<Activation::silu>(__VA_ARGS__);       \
    case Activation::sigmoid:                               \
      return function<Activation::sigmoid>(__VA_ARGS__);    \
    default:                                                \
      return function<Activation::none>(__VA_ARGS__);       \
  }

void activate(Activation activation, const float* x, std::int64_t n, float* y) {
  TESSERA_FOR_ACTIVATION(activate_as, x, n, y)
}

void activate_gradient(Activation activation, const float* x, const float* dy, const float* initial,
                       std::int64_t n, float* dx) {
  TESSERA_FOR_ACTIVATION(activate_gradient_as, x, dy, initial, n, dx)
}
#undef TESSERA_FOR_ACTIVATION

/// Sum of f(i) over [0, n), where f(i) gives kLanes of them and single(i) one.
template <class Lanes, class One>
TESSERA_INLINE float sum_over(std::int64_t n, Lanes lanes, One one) {
  const std::int64_t whole = n / kLanes * kLanes;
  Vec sums{};
  for (std::int64_t i = 0; i < whole; i += kLanes) sums += lanes(i);
  float sum = sum_of(sums);
  for (std::int64_t i = whole; i < n; ++i) sum += one(i);
  return sum;
}

/// Calls lanes(i) for whole vectors and one(i) for the rest of [0, n).
template <class Lanes, class One>
TESSERA_INLINE void for_all(std::int64_t n, Lanes lanes, One one) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) lanes(i);
  for (std::int64_t i = whole; i < n; ++i) one(i);
}

// With h = (x - mean) / deviation and g = dy * weight:
//   dx = (g - mean(g) - h * mean(g * h)) / deviation;  dweight = dy * h;  dbias = dy
void layer_norm_gradient(const float* x, const float* weight, const float* dy, float eps,
                         std::int64_t width, float* dx, float* dweight, float* dbias) {
  const auto n = static_cast<float>(width);
  const float mean = sum_over(
                         width, [&](auto i) { return load(x + i); }, [&](auto i) { return x[i]; }) /
                     n;
  const float variance = sum_over(
                             width,
                             [&](auto i) {
                               const Vec d = load(x + i) - mean;
                               return d * d;
                             },
                             [&](auto i) { return (x[i] - mean) * (x[i] - mean); }) /
                         n;
  const float inverse = 1.0f / root(variance + eps);
  const float g_mean = sum_over(
                           width, [&](auto i) { return load(dy + i) * load(weight + i); },
                           [&](auto i) { return dy[i] * weight[i]; }) /
                       n;
  const float gh_mean =
      sum_over(
          width,
          [&](auto i) {
            return load(dy + i) * load(weight + i) * ((load(x + i) - mean) * inverse);
          },
          [&](auto i) { return dy[i] * weight[i] * ((x[i] - mean) * inverse); }) /
      n;
  for_all(
      width,
      [&](auto i) {
        const Vec d = load(dy + i), h = (load(x + i) - mean) * inverse;
        store(dx + i, load(dx + i) + (d * load(weight + i) - g_mean - h * gh_mean) * inverse);
        store(dweight + i, load(dweight + i) + d * h);
        store(dbias + i, load(dbias + i) + d);
      },
      [&](auto i) {
        const float h = (x[i] - mean) * inverse;
        dx[i] += (dy[i] * weight[i] - g_mean - h * gh_mean) * inverse;
        dweight[i] += dy[i] * h;
        dbias[i] += dy[i];
      });
}

// With h = x / rms and g = dy * weight:  dx = (g - h * mean(g * h)) / rms;  dweight = dy * h
void rms_norm_gradient(const float* x, const float* weight, const float* dy, float eps,
                       std::int64_t width, float* dx, float* dweight) {
  const auto n = static_cast<float>(width);
  const float square = sum_over(
                           width, [&](auto i) { return load(x + i) * load(x + i); },
                           [&](auto i) { return x[i] * x[i]; }) /
                       n;
  const float inverse = 1.0f / root(square + eps);
  const float gh_mean =
      sum_over(
          width, [&](auto i) { return load(dy + i) * load(weight + i) * (load(x + i) * inverse); },
          [&](auto i) { return dy[i] * weight[i] * (x[i] * inverse); }) /
      n;
  for_all(
      width,
      [&](auto i) {
        const Vec d = load(dy + i), h = load(x + i) * inverse;
        store(dx + i, load(dx + i) + (d * load(weight + i) - h * gh_mean) * inverse);
        store(dweight + i, load(dweight + i) + d * h);
      },
      [&](auto i) {
        const float h = x[i] * inverse;
        dx[i] += (dy[i] * weight[i] - h * gh_mean) * inverse;
        dweight[i] += dy[i] * h;
      });
}

float row_log_sum_exp(const float* x, std::int64_t n, float* lse, float* sum) {
  float best = x[0];
  Vec high = splat(best);
  for_all(
      n, [&](auto i) { high = larger(high, load(x + i)); },
      [&](auto i) { best = x[i] > best ? x[i] : best; });
  const float top = max_of(high) > best ? max_of(high) : best;
  const float total = sum_over(
      n, [&](auto i) { return exp_negative(load(x + i) - top); },
      [&](auto i) { return exp_negative(splat(x[i] - top))[0]; });
  *sum = sum_over(
      n, [&](auto i) { return load(x + i); }, [&](auto i) { return x[i]; });
  *lse = top + __builtin_logf(total);
  return top;
}

void softmax_gradient(const float* x, std::int64_t n, float lse, float factor, float base,
                      const float* initial, float* y) {
  for_all(
      n,
      [&](auto i) {
        const Vec d = (exp_negative(load(x + i) - lse) - base) * factor;
        store(y + i, initial ? load(initial + i) + d : d);
      },
      [&](auto i) {
        const float d = (exp_negative(splat(x[i] - lse))[0] - base) * factor;
        y[i] = initial ? initial[i] + d : d;
      });
}

void add_scaled(const float* x, float factor, std::int64_t n, float* y) {
  for_all(
      n, [&](auto i) { store(y + i, load(y + i) + load(x + i) * factor); },
      [&](auto i) { y[i] += x[i] * factor; });
}

void add_product(const float* a, const float* b, std::int64_t n, float* y) {
  for_all(
      n, [&](auto i) { store(y + i, load(y + i) + load(a + i) * load(b + i)); },
      [&](auto i) { y[i] += a[i] * b[i]; });
}

/// In parts short enough for float.
double sum_of_squares(const float* x, std::int64_t n) {
  constexpr std::int64_t kPart = 256;
  double total = 0;
  for (std::int64_t at = 0; at < n; at += kPart) {
    const float* part = x + at;
    total += static_cast<double>(sum_over(
        n - at < kPart ? n - at : kPart, [&](auto i) { return load(part + i) * load(part + i); },
        [&](auto i) { return part[i] * part[i]; }));
  }
  return total;
}

TESSERA_INLINE Vec root(Vec x) {
  for (std::int64_t i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

void adamw(const AdamWStep& s) {
  const auto update = [&](auto weight, auto first, auto second, auto gradient, auto keep) {
    const auto g = gradient * s.factor;
    const auto m = first * s.beta1 + g * (1.0f - s.beta1);
    const auto v = second * s.beta2 + g * g * (1.0f - s.beta2);
    keep(weight * s.decay - m / (root(v * s.second_scale) + s.eps) * s.step, m, v);
  };
  for_all(
      s.n,
      [&](auto i) {
        update(load(s.weight + i), load(s.first + i), load(s.second + i), load(s.gradient + i),
               [&](Vec w, Vec m, Vec v) {
                 store(s.weight + i, w);
                 store(s.first + i, m);
                 store(s.second + i, v);
               });
      },
      [&](auto i) {
        update(s.weight[i], s.first[i], s.second[i], s.gradient[i], [&](float w, float m, float v) {
          s.weight[i] = w, s.first[i] = m, s.second[i] = v;
        });
      });
}

}  // namespace
}  // namespace tessera::kernels
