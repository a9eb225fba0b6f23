// The vector kernels, written with the compilers' vector types and compiled once for each
// instruction set: a file that includes this one defines TESSERA_VECTOR_BYTES, TESSERA_TILE_ROWS
// and TESSERA_KERNELS_NAME and is compiled with that instruction set's flags. Nothing here may call
// inline functions of the standard library: the linker could pick this file's copy, made for a
// newer machine, for the whole program.
#include <cstdint>

#include "core/kernels/vector.h"

namespace tessera::kernels {
namespace {

constexpr std::int64_t kLanes = TESSERA_VECTOR_BYTES / 4;
constexpr std::int64_t kPanel = 2 * kLanes;
constexpr std::int64_t kRows = TESSERA_TILE_ROWS;
static_assert(kQueryBlock % kRows == 0 && kKeyBlock % kPanel == 0);

typedef float Vec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));
typedef std::int32_t IntVec __attribute__((vector_size(TESSERA_VECTOR_BYTES)));

#define TESSERA_INLINE inline __attribute__((always_inline))

TESSERA_INLINE Vec load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
TESSERA_INLINE void store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof v); }
TESSERA_INLINE Vec splat(float x) { return x - Vec{}; }

TESSERA_INLINE float sum_of(Vec v) {
  float sum = 0;
  for (std::int64_t i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}
TESSERA_INLINE float max_of(Vec v) {
  float best = v[0];
  for (std::int64_t i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
}
TESSERA_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

/// e^x for x <= 0 (relative error about 2e-7; 0 below -87): 2^n times a polynomial of degree 6 on
/// [-ln2/2, ln2/2].
TESSERA_INLINE Vec exp_negative(Vec x) {
  const Vec round =
      splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const Vec shifted = x * 1.44269504089f + round;
  const Vec n = shifted - round;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const IntVec exponent = ((IntVec)shifted - (IntVec)round) << 23;
  const Vec y = (Vec)((IntVec)p + exponent);
  return x < -87.0f ? Vec{} : y;
}

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

void few_rows_dot(const float* x, std::int64_t ldx, std::int64_t m, const float* weight,
                  std::int64_t n, std::int64_t k, float* sums) {
  const std::int64_t whole = k / kPanel * kPanel;
  for (std::int64_t j = 0; j < n; ++j) {
    const float* w = weight + j * k;
    for (std::int64_t r = 0; r < m; ++r) {
      const float* row = x + r * ldx;
      Vec a{}, b{};
      for (std::int64_t i = 0; i < whole; i += kPanel) {
        a += load(row + i) * load(w + i);
        b += load(row + i + kLanes) * load(w + i + kLanes);
      }
      float sum = sum_of(a + b);
      for (std::int64_t i = whole; i < k; ++i) sum += row[i] * w[i];
      sums[r * n + j] = sum;
    }
  }
}

void pack_head(const float* k, std::int64_t ldk, const float* v, std::int64_t ldv,
               std::int64_t begin, std::int64_t end, std::int64_t width, float* keys,
               float* values) {
  const std::int64_t padded = (width + kPanel - 1) / kPanel * kPanel;
  for (std::int64_t first = begin; first < end; first += kPanel) {
    float* panel = keys + first * width;
    const std::int64_t count = end - first < kPanel ? end - first : kPanel;
    for (std::int64_t j = 0; j < kPanel; ++j) {
      const float* row = k + (first + j) * ldk;
      for (std::int64_t c = 0; c < width; ++c) panel[c * kPanel + j] = j < count ? row[c] : 0.0f;
    }
  }
  for (std::int64_t i = begin; i < end; ++i) {
    float* to = values + i * padded;
    for (std::int64_t c = 0; c < width; ++c) to[c] = v[i * ldv + c];
    for (std::int64_t c = width; c < padded; ++c) to[c] = 0.0f;
  }
}

/// c[kRows][kPanel] (row stride ldc) = or += a[kRows][depth] (row stride lda) * b[depth][kPanel]
/// (row stride ldb).
template <bool kAccumulate>
TESSERA_INLINE void tile_product(const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                                 std::int64_t depth, float* c, std::int64_t ldc) {
  Vec acc[kRows][2];
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    acc[r][0] = kAccumulate ? load(c + r * ldc) : Vec{};
    acc[r][1] = kAccumulate ? load(c + r * ldc + kLanes) : Vec{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const Vec b0 = load(b + k * ldb), b1 = load(b + k * ldb + kLanes);
#pragma GCC unroll 16
    for (std::int64_t r = 0; r < kRows; ++r) {
      const Vec x = splat(a[r * lda + k]);
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (std::int64_t r = 0; r < kRows; ++r) {
    store(c + r * ldc, acc[r][0]);
    store(c + r * ldc + kLanes, acc[r][1]);
  }
}

struct Scratch {
  float* q;       // [kQueryBlock, width], scaled
  float* scores;  // [kQueryBlock, kKeyBlock]
  float* out;     // [kQueryBlock, padded width]
  float* best;    // [kQueryBlock] running maximum
  float* total;   // [kQueryBlock] running sum of exponentials
};

/// One row of scores -> exponentials against the running maximum; returns the factor for what was
/// summed before.
TESSERA_INLINE float softmax_row(float* scores, std::int64_t padded_count, float& best,
                                 float& total) {
  Vec high = splat(best);
  for (std::int64_t j = 0; j < padded_count; j += kLanes) high = larger(high, load(scores + j));
  const float now = max_of(high);
  const float factor = now == best ? 1.0f : exp_negative(splat(best - now))[0];
  Vec sums{};
  for (std::int64_t j = 0; j < padded_count; j += kLanes) {
    const Vec e = exp_negative(load(scores + j) - now);
    store(scores + j, e);
    sums += e;
  }
  total = total * factor + sum_of(sums);
  best = now;
  return factor;
}

/// Scores beyond what a row may see become very negative (their exponentials 0).
TESSERA_INLINE void mask_row(float* scores, std::int64_t visible, std::int64_t padded_count) {
  for (std::int64_t j = visible < 0 ? 0 : visible; j < padded_count; ++j) scores[j] = -1e30f;
}

void attention_block(const AttentionBlock& b) {
  const std::int64_t padded = (b.width + kPanel - 1) / kPanel * kPanel;
  Scratch s{};
  s.q = b.scratch;
  s.scores = s.q + kQueryBlock * b.width;
  s.out = s.scores + kQueryBlock * kKeyBlock;
  s.best = s.out + kQueryBlock * padded;
  s.total = s.best + kQueryBlock;
  const std::int64_t rows =
      (b.rows + kRows - 1) / kRows * kRows;  // whole tiles; rows beyond b.rows are zero
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < b.width; ++c)
      s.q[r * b.width + c] = r < b.rows ? b.q[r * b.ldq + c] * b.scale : 0.0f;
    for (std::int64_t c = 0; c < padded; ++c) s.out[r * padded + c] = 0.0f;
    s.best[r] = -1e30f;
    s.total[r] = 0.0f;
  }
  const std::int64_t seen =
      b.causal && b.first + b.rows - 1 < b.keys ? b.first + b.rows - 1 : b.keys;
  for (std::int64_t begin = 0; begin < seen; begin += kKeyBlock) {
    const std::int64_t count = seen - begin < kKeyBlock ? seen - begin : kKeyBlock;
    const std::int64_t whole = (count + kPanel - 1) / kPanel * kPanel;
    for (std::int64_t r = 0; r < rows; r += kRows) {
      for (std::int64_t j = 0; j < whole; j += kPanel) {
        tile_product<false>(s.q + r * b.width, b.width, b.head.keys + (begin + j) * b.width, kPanel,
                            b.width, s.scores + r * kKeyBlock + j, kKeyBlock);
      }
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t visible =
          b.causal && b.first + r - begin < count ? b.first + r - begin : count;
      mask_row(s.scores + r * kKeyBlock, visible, whole);
      if (visible <=
          0) {  // nothing to see in this block; leaves maximum, sum and output as they are
        for (std::int64_t j = 0; j < whole; ++j) s.scores[r * kKeyBlock + j] = 0.0f;
        continue;
      }
      const float factor = softmax_row(s.scores + r * kKeyBlock, whole, s.best[r], s.total[r]);
      if (factor != 1.0f) {
        for (std::int64_t c = 0; c < padded; c += kLanes)
          store(s.out + r * padded + c, load(s.out + r * padded + c) * factor);
      }
    }
    for (std::int64_t r = 0; r < rows; r += kRows) {
      for (std::int64_t c = 0; c < padded; c += kPanel) {
        tile_product<true>(s.scores + r * kKeyBlock, kKeyBlock, b.head.values + begin * padded + c,
                           padded, count, s.out + r * padded + c, padded);
      }
    }
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    const float inverse = 1.0f / s.total[r];
    for (std::int64_t c = 0; c < b.width; ++c)
      b.out[r * b.ldo + c] = s.out[r * padded + c] * inverse;
  }
}

void attention_one(const float* q, const float* k, std::int64_t ldk, const float* v,
                   std::int64_t ldv, std::int64_t keys, std::int64_t width, float scale, float* out,
                   float* scratch) {
  const std::int64_t whole = width / kLanes * kLanes;
  float best = -1e30f;
  for (std::int64_t j = 0; j < keys; ++j) {
    const float* row = k + j * ldk;
    Vec sums{};
    for (std::int64_t c = 0; c < whole; c += kLanes) sums += load(q + c) * load(row + c);
    float dot = sum_of(sums);
    for (std::int64_t c = whole; c < width; ++c) dot += q[c] * row[c];
    scratch[j] = dot * scale;
    best = scratch[j] > best ? scratch[j] : best;
  }
  const std::int64_t whole_keys = keys / kLanes * kLanes;
  Vec sums{};
  for (std::int64_t j = 0; j < whole_keys; j += kLanes) {
    const Vec e = exp_negative(load(scratch + j) - best);
    store(scratch + j, e);
    sums += e;
  }
  float total = sum_of(sums);
  for (std::int64_t j = whole_keys; j < keys; ++j) {
    scratch[j] = exp_negative(splat(scratch[j] - best))[0];
    total += scratch[j];
  }
  for (std::int64_t c = 0; c < width; ++c) out[c] = 0.0f;
  for (std::int64_t j = 0; j < keys; ++j) {
    const float* row = v + j * ldv;
    const Vec p = splat(scratch[j]);
    for (std::int64_t c = 0; c < whole; c += kLanes)
      store(out + c, load(out + c) + p * load(row + c));
    for (std::int64_t c = whole; c < width; ++c) out[c] += scratch[j] * row[c];
  }
  const float inverse = 1.0f / total;
  for (std::int64_t c = 0; c < width; ++c) out[c] *= inverse;
}

}  // namespace

extern const VectorKernels TESSERA_KERNELS_NAME;
const VectorKernels TESSERA_KERNELS_NAME = {TESSERA_KERNELS_LABEL,
                                            kPanel,
                                            layer_norm,
                                            rms_norm,
                                            add,
                                            multiply,
                                            rotate,
                                            few_rows_panel,
                                            few_rows_dot,
                                            pack_head,
                                            attention_block,
                                            attention_one};

}  // namespace tessera::kernels
