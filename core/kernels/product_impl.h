// Products of matrices that change from call to call; see training.h.
#include "core/kernels/vector_types.h"

namespace tessera::kernels {
namespace {

void pack_rows(const float* a, std::int64_t stride, bool turned, std::int64_t m, std::int64_t k,
               float* to) {
  for (std::int64_t first = 0; first < m; first += kRows, to += k * kRows) {
    const std::int64_t count = m - first < kRows ? m - first : kRows;
    if (count < kRows) {
      for (std::int64_t i = 0; i < k * kRows; ++i) to[i] = 0.0f;
    }
    if (turned) {
      const float* from = a + first;
      if (count == kRows) {
        for (std::int64_t c = 0; c < k; ++c) {
#pragma GCC unroll 16
          for (std::int64_t r = 0; r < kRows; ++r) to[c * kRows + r] = from[c * stride + r];
        }
        continue;
      }
      for (std::int64_t c = 0; c < k; ++c) {
        for (std::int64_t r = 0; r < count; ++r) to[c * kRows + r] = from[c * stride + r];
      }
    } else if (count == kRows) {
      const float* from = a + first * stride;
      for (std::int64_t c = 0; c < k; ++c) {
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < kRows; ++r) to[c * kRows + r] = from[r * stride + c];
      }
    } else {
      for (std::int64_t r = 0; r < count; ++r) {
        const float* from = a + (first + r) * stride;
        for (std::int64_t c = 0; c < k; ++c) to[c * kRows + r] = from[c];
      }
    }
  }
}

void pack_columns(const float* b, std::int64_t stride, bool turned, std::int64_t n, std::int64_t k,
                  float* to) {
  if (!turned && n == kPanel) {
    for (std::int64_t c = 0; c < k; ++c) {
      store(to + c * kPanel, load(b + c * stride));
      store(to + c * kPanel + kLanes, load(b + c * stride + kLanes));
    }
    return;
  }
  if (n < kPanel) {
    for (std::int64_t i = 0; i < k * kPanel; ++i) to[i] = 0.0f;
  }
  if (turned) {
    constexpr std::int64_t kStep = 16;  // a cache line of each row at a time
    for (std::int64_t c0 = 0; c0 < k; c0 += kStep) {
      const std::int64_t c1 = c0 + kStep < k ? c0 + kStep : k;
      for (std::int64_t j = 0; j < n; ++j) {
        for (std::int64_t c = c0; c < c1; ++c) to[c * kPanel + j] = b[j * stride + c];
      }
    }
  } else {
    for (std::int64_t c = 0; c < k; ++c) {
      for (std::int64_t j = 0; j < n; ++j) to[c * kPanel + j] = b[c * stride + j];
    }
  }
}

/// What a row of the tile starts from, for the columns that are there.
TESSERA_INLINE void product_edge(const ProductTile& t, const float* sums) {
  for (std::int64_t r = 0; r < t.rows; ++r) {
    for (std::int64_t j = 0; j < t.columns; ++j) {
      float y = sums[r * kPanel + j];
      if (t.bias) y += t.bias[j];
      if (t.initial) y += t.initial[r * t.ld_initial + j];
      t.c[r * t.ldc + j] = y;
    }
  }
}

void product_tile(const ProductTile& t) {
  Vec acc[kRows][2] = {};
  const float *a = t.a, *b = t.b;
  for (std::int64_t i = 0; i < t.k; ++i, a += kRows, b += kPanel) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec x = splat(a[r]);
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
  }
  if (t.rows < kRows || t.columns < kPanel) {
    float sums[kRows * kPanel];
    for (std::int64_t r = 0; r < kRows; ++r) {
      store(sums + r * kPanel, acc[r][0]);
      store(sums + r * kPanel + kLanes, acc[r][1]);
    }
    product_edge(t, sums);
    return;
  }
  Vec bias0{}, bias1{};
  if (t.bias) bias0 = load(t.bias), bias1 = load(t.bias + kLanes);
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    Vec y0 = acc[r][0] + bias0, y1 = acc[r][1] + bias1;
    if (t.initial) {
      y0 += load(t.initial + r * t.ld_initial);
      y1 += load(t.initial + r * t.ld_initial + kLanes);
    }
    store(t.c + r * t.ldc, y0);
    store(t.c + r * t.ldc + kLanes, y1);
  }
}

}  // namespace
}  // namespace tessera::kernels
