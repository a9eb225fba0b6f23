#include "core/kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/kernels/vector.h"

namespace tessera::kernels::reference {

float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(x, 0.0f);
    case Activation::gelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::gelu_tanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::quick_gelu:
      return x / (1.0f + std::exp(-1.702f * x));
    case Activation::silu:
      return x / (1.0f + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return 1.0f / (1.0f + std::exp(-x));
    case Activation::relu_squared:
      return std::max(x, 0.0f) * std::max(x, 0.0f);
    case Activation::mish:
      return x * std::tanh(x > 20.0f ? x : std::log1p(std::exp(x)));
  }
  return x;
}

float slope(Activation activation, float at) {
  const double x = at, logistic = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::none:
      return 1;
    case Activation::relu:
      return x > 0 ? 1 : 0;
    case Activation::gelu:
      return static_cast<float>(0.5 * (1 + std::erf(x * 0.70710678118654752)) +
                                x * std::exp(-x * x / 2) * 0.39894228040143268);
    case Activation::gelu_tanh: {
      const double t = std::tanh(0.79788456080286536 * (x + 0.044715 * x * x * x));
      return static_cast<float>(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286536 *
                                                    (1 + 3 * 0.044715 * x * x));
    }
    case Activation::quick_gelu: {
      const double s = 1 / (1 + std::exp(-1.702 * x));
      return static_cast<float>(s + 1.702 * x * s * (1 - s));
    }
    case Activation::silu:
      return static_cast<float>(logistic + x * logistic * (1 - logistic));
    case Activation::tanh:
      return static_cast<float>(1 - std::tanh(x) * std::tanh(x));
    case Activation::sigmoid:
      return static_cast<float>(logistic * (1 - logistic));
    case Activation::relu_squared:
      return static_cast<float>(2 * std::max(x, 0.0));
    case Activation::mish: {
      const double t = std::tanh(x > 20 ? x : std::log1p(std::exp(x)));
      return static_cast<float>(t + x * (1 - t * t) * logistic);
    }
  }
  return 1;
}

void linear(const float* x, const float* weight, const float* bias, const float* residual,
            Activation activation, std::int64_t m, std::int64_t n, std::int64_t k, float* y) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias ? bias[j] : 0.0;
      for (std::int64_t c = 0; c < k; ++c)
        sum += static_cast<double>(x[i * k + c]) * weight[j * k + c];
      y[i * n + j] =
          activate(activation, static_cast<float>(sum)) + (residual ? residual[i * n + j] : 0.0f);
    }
  }
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps,
                std::int64_t width, float* y) {
  double sum = 0, square = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(width);
  for (std::int64_t i = 0; i < width; ++i) square += (x[i] - mean) * (x[i] - mean);
  const double inverse = 1.0 / std::sqrt(square / static_cast<double>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i)
    y[i] = static_cast<float>((x[i] - mean) * inverse * weight[i] + bias[i]);
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t width, float* y) {
  double square = 0;
  for (std::int64_t i = 0; i < width; ++i) square += static_cast<double>(x[i]) * x[i];
  const double inverse = 1.0 / std::sqrt(square / static_cast<double>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i) y[i] = static_cast<float>(x[i] * inverse * weight[i]);
}

void rotate(const float* x, const float* cos, const float* sin, std::int64_t half, float* y) {
  for (std::int64_t i = 0; i < half; ++i) {
    const double a = x[i], b = x[i + half];
    y[i] = static_cast<float>(a * cos[i] - b * sin[i]);
    y[i + half] = static_cast<float>(b * cos[i] + a * sin[i]);
  }
}

void attention(const float* q, const float* k, const float* v, std::int64_t queries,
               std::int64_t keys, std::int64_t heads, std::int64_t kv_heads, std::int64_t width,
               float scale, bool causal, float* out, const Dropout& dropped) {
  std::vector<double> p(static_cast<std::size_t>(keys));
  for (std::int64_t h = 0; h < heads; ++h) {
    const std::int64_t g = h / (heads / kv_heads);
    for (std::int64_t i = 0; i < queries; ++i) {
      const std::int64_t seen = causal ? keys - queries + i + 1 : keys;
      const float* query = q + (i * heads + h) * width;
      double best = -1e300, total = 0;
      for (std::int64_t j = 0; j < seen; ++j) {
        double dot = 0;
        for (std::int64_t c = 0; c < width; ++c)
          dot += static_cast<double>(query[c]) * k[(j * kv_heads + g) * width + c];
        p[static_cast<std::size_t>(j)] = dot * scale;
        best = std::max(best, dot * scale);
      }
      for (std::int64_t j = 0; j < seen; ++j)
        total += p[static_cast<std::size_t>(j)] = std::exp(p[static_cast<std::size_t>(j)] - best);
      for (std::int64_t j = 0; j < seen; ++j) {
        p[static_cast<std::size_t>(j)] *= factor_at(dropped, (h * queries + i) * keys + j);
      }
      for (std::int64_t c = 0; c < width; ++c) {
        double sum = 0;
        for (std::int64_t j = 0; j < seen; ++j)
          sum += p[static_cast<std::size_t>(j)] * v[(j * kv_heads + g) * width + c];
        out[(i * heads + h) * width + c] = static_cast<float>(sum / total);
      }
    }
  }
}

namespace {

/// count numbers, `step` apart, as the nearest multiples of a part of the largest.
void round_to_parts(std::vector<double>& x, std::int64_t first, std::int64_t step,
                    std::int64_t count, double parts) {
  double most = 0;
  for (std::int64_t i = 0; i < count; ++i)
    most = std::max(most, std::abs(x[static_cast<std::size_t>(first + i * step)]));
  for (std::int64_t i = 0; i < count && most > 0; ++i) {
    double& number = x[static_cast<std::size_t>(first + i * step)];
    number = std::rint(number * parts / most) * most / parts;
  }
}

/// Takes the means of the columns of every step-th row off x [rows, width].
std::vector<double> take_means(std::vector<double>& x, std::int64_t rows, std::int64_t width,
                               std::int64_t step) {
  std::vector<double> means(static_cast<std::size_t>(width));
  const std::int64_t counted = (rows + step - 1) / step;
  for (std::int64_t r = 0; r < rows; r += step)
    for (std::int64_t c = 0; c < width; ++c)
      means[static_cast<std::size_t>(c)] +=
          x[static_cast<std::size_t>(r * width + c)] / static_cast<double>(counted);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] -= means[i % means.size()];
  return means;
}

}  // namespace

void attention_in_integers(const float* q, const float* k, const float* v, std::int64_t queries,
                           std::int64_t keys, std::int64_t width, float scale, double most,
                           double parts, float* out) {
  std::vector<double> near_q(q, q + queries * width), near_k(k, k + keys * width),
      near_v(v, v + keys * width);
  take_means(near_k, keys, width, key_mean_step(keys));
  const std::vector<double> means = take_means(near_v, keys, width, 1);
  for (std::int64_t i = 0; i < queries; ++i) round_to_parts(near_q, i * width, 1, width, most);
  for (std::int64_t j = 0; j < keys; ++j) round_to_parts(near_k, j * width, 1, width, most);
  for (std::int64_t c = 0; c < width; ++c) round_to_parts(near_v, c, width, keys, most);
  std::vector<double> scores(static_cast<std::size_t>(keys));
  for (std::int64_t i = 0; i < queries; ++i) {
    for (std::int64_t j = 0; j < keys; ++j) {
      double& score = scores[static_cast<std::size_t>(j)] = 0;
      for (std::int64_t c = 0; c < width; ++c) {
        score += near_q[static_cast<std::size_t>(i * width + c)] *
                 near_k[static_cast<std::size_t>(j * width + c)] * static_cast<double>(scale);
      }
    }
    const double best = *std::max_element(scores.begin(), scores.end());
    std::vector<double> sums(static_cast<std::size_t>(width));
    double total = 0;
    for (std::int64_t begin = 0; begin < keys; begin += kKeyBlock) {
      const auto first = scores.begin() + begin,
                 last = scores.begin() + std::min(keys, begin + kKeyBlock);
      const double highest = *std::max_element(first, last), factor = std::exp(highest - best);
      for (auto at = first; at != last; ++at) {
        const double weight = std::exp(*at - highest);
        total += weight * factor;
        for (std::int64_t c = 0; c < width; ++c) {
          sums[static_cast<std::size_t>(c)] +=
              std::rint(weight * parts) / parts * factor *
              near_v[static_cast<std::size_t>((at - scores.begin()) * width + c)];
        }
      }
    }
    for (std::int64_t c = 0; c < width; ++c) {
      const auto at = static_cast<std::size_t>(c);
      out[i * width + c] = static_cast<float>(sums[at] / total + means[at]);
    }
  }
}

void conv1d(const float* x, const float* weight, const float* bias, std::int64_t frames,
            std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
            std::int64_t padding, float* y) {
  const std::int64_t count = (frames + 2 * padding - kernel) / stride + 1;
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = bias ? bias[o] : 0.0;
      for (std::int64_t j = 0; j < kernel; ++j) {
        const std::int64_t at = t * stride + j - padding;
        if (at < 0 || at >= frames) continue;
        for (std::int64_t c = 0; c < in; ++c)
          sum += static_cast<double>(x[at * in + c]) * weight[(o * in + c) * kernel + j];
      }
      y[t * out + o] = static_cast<float>(sum);
    }
  }
}

}  // namespace tessera::kernels::reference
