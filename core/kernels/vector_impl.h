// Norms, sums and products of few rows; see vector.h.
#pragma once
#include "core/kernels/attention_few_impl.h"
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

void layer_norm(const float* x, const float* weight, const float* bias, float eps,
                std::int64_t width, float* y) {
  const std::int64_t whole = width / kLanes * kLanes;
  Vec sums{};
  for (std::int64_t i = 0; i < whole; i += kLanes) sums += load(x + i);
  float sum = sum_of(sums);
  for (std::int64_t i = whole; i < width; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(width);

  Vec squares{};
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Vec d = load(x + i) - mean;
    squares += d * d;
  }
  float square = sum_of(squares);
  for (std::int64_t i = whole; i < width; ++i) square += (x[i] - mean) * (x[i] - mean);
  const float inverse = 1.0f / __builtin_sqrtf(square / static_cast<float>(width) + eps);

  for (std::int64_t i = 0; i < whole; i += kLanes) {
    store(y + i, (load(x + i) - mean) * inverse * load(weight + i) + load(bias + i));
  }
  for (std::int64_t i = whole; i < width; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t width, float* y) {
  const std::int64_t whole = width / kLanes * kLanes;
  Vec squares{};
  for (std::int64_t i = 0; i < whole; i += kLanes) squares += load(x + i) * load(x + i);
  float square = sum_of(squares);
  for (std::int64_t i = whole; i < width; ++i) square += x[i] * x[i];
  const float inverse = 1.0f / __builtin_sqrtf(square / static_cast<float>(width) + eps);
  for (std::int64_t i = 0; i < whole; i += kLanes)
    store(y + i, load(x + i) * inverse * load(weight + i));
  for (std::int64_t i = whole; i < width; ++i) y[i] = x[i] * inverse * weight[i];
}

void add(const float* a, const float* b, std::int64_t n, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(a + i) + load(b + i));
  for (; i < n; ++i) y[i] = a[i] + b[i];
}

void multiply(const float* a, const float* b, std::int64_t n, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(a + i) * load(b + i));
  for (; i < n; ++i) y[i] = a[i] * b[i];
}

float largest(const float* x, std::int64_t n) {
  Vec high[4];
  for (Vec& h : high) h = splat(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (std::int64_t j = 0; j < 4; ++j) high[j] = larger(load(x + i + j * kLanes), high[j]);
  float best = max_of(larger(larger(high[0], high[1]), larger(high[2], high[3])));
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

double sum_exp(const float* x, std::int64_t n, float largest) {
  constexpr std::int64_t kBlock = 512;  // numbers added as floats before they go to the total
  double total = 0;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    Vec sums{};
    for (const std::int64_t end = n - i < kBlock ? n : i + kBlock; i + kLanes <= end; i += kLanes)
      sums += exp_negative(load(x + i) - largest);
    total += static_cast<double>(sum_of(sums));
  }
  for (; i < n; ++i) total += static_cast<double>(exp_negative(splat(x[i] - largest))[0]);
  return total;
}

void rotate(const float* x, const float* cos, const float* sin, std::int64_t half, float* y) {
  const float* second = x + half;
  std::int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec a = load(x + i), b = load(second + i), c = load(cos + i), s = load(sin + i);
    store(y + i, a * c - b * s);
    store(y + half + i, b * c + a * s);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = second[i];
    y[i] = a * cos[i] - b * sin[i];
    y[half + i] = b * cos[i] + a * sin[i];
  }
}

constexpr std::int64_t kPanelColumns = 64;

template <std::int64_t kCount>
TESSERA_INLINE void rows_times_panel(const float* x, std::int64_t ldx, const float* panel,
                                     std::int64_t k, float* sums) {
  constexpr std::int64_t kVectors = kPanelColumns / kLanes;
  Vec acc[kCount][kVectors] = {};
  for (std::int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < kVectors; ++v) {
      const Vec w = load(panel + i * kPanelColumns + v * kLanes);
#pragma GCC unroll 4
      for (std::int64_t r = 0; r < kCount; ++r) acc[r][v] += splat(x[r * ldx + i]) * w;
    }
  }
  for (std::int64_t r = 0; r < kCount; ++r) {
    for (std::int64_t v = 0; v < kVectors; ++v)
      store(sums + r * kPanelColumns + v * kLanes, acc[r][v]);
  }
}

void few_rows_panel(const float* x, std::int64_t ldx, std::int64_t m, const float* panel,
                    std::int64_t k, float* sums) {
  switch (m) {
    case 1:
      return rows_times_panel<1>(x, ldx, panel, k, sums);
    case 2:
      return rows_times_panel<2>(x, ldx, panel, k, sums);
    case 3:
      return rows_times_panel<3>(x, ldx, panel, k, sums);
    default:
      return rows_times_panel<4>(x, ldx, panel, k, sums);
  }
}

/// x times one column, lane by lane.
template <class Number>
TESSERA_INLINE Vec dot(const float* x, const Number* w, std::int64_t whole) {
  constexpr std::int64_t kStep = 4 * kLanes;
  Vec sums[4] = {};
  std::int64_t i = 0;
  for (; i + kStep <= whole; i += kStep) {
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < 4; ++v)
      sums[v] += load(x + i + v * kLanes) * numbers_at(w + i + v * kLanes);
  }
  for (; i < whole; i += kLanes) sums[0] += load(x + i) * numbers_at(w + i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Reads column after column, from one end of memory to the other.
template <class Number>
TESSERA_INLINE void few_rows_dot_of(const float* x, std::int64_t ldx, std::int64_t m,
                                    const Number* weight, std::int64_t n, std::int64_t k,
                                    float* sums) {
  const std::int64_t whole = k / kLanes * kLanes;
  for (std::int64_t j = 0; j < n; j += kKeysAtOnce) {
    const std::int64_t count = n - j < kKeysAtOnce ? n - j : kKeysAtOnce;
    for (std::int64_t r = 0; r < m; ++r) {
      const float* row = x + r * ldx;
      Vec lanes[kKeysAtOnce] = {};
      for (std::int64_t c = 0; c < count; ++c) lanes[c] = dot(row, weight + (j + c) * k, whole);
      float dots[kKeysAtOnce];
      sums_of(lanes, dots);
      for (std::int64_t c = 0; c < count; ++c) {
        const Number* w = weight + (j + c) * k;
        for (std::int64_t i = whole; i < k; ++i) dots[c] += row[i] * number_at(w + i);
        sums[r * n + j + c] = dots[c];
      }
    }
  }
}

void few_rows_dot(const float* x, std::int64_t ldx, std::int64_t m, const WeightRows& weight,
                  std::int64_t n, std::int64_t k, float* sums) {
  if (weight.half) {
    few_rows_dot_of(x, ldx, m, weight.half, n, k, sums);
  } else {
    few_rows_dot_of(x, ldx, m, weight.data, n, k, sums);
  }
}

}  // namespace
}  // namespace tessera::kernels
