#pragma once
#include <cstdint>

#include "core/activation.h"
#include "core/kernels/dropout.h"

namespace tessera::kernels {

/// Numbers of a line of memory.
constexpr std::int64_t kLineNumbers = 16;

/// A tile of a product: `rows` x one panel of columns, from packed factors. What is packed are
/// words: numbers, or pairs of bf16 numbers that follow each other along the sums.
struct ProductTile {
  const float* a;        // [k][tile rows]
  const float* b;        // [k][panel]
  std::int64_t k;        // words
  const float* bias;     // of these columns, or null
  const float* initial;  // row stride ld_initial, or null
  std::int64_t ld_initial;
  float* c;
  std::int64_t ldc;
  std::int64_t rows, columns;  // that are there
  /// Nobody reads c soon: it need not come to the caches, where its rows begin on lines of memory.
  bool passes_by = false;
  /// This tile's share of the panel that is multiplied next, for which memory is asked meanwhile.
  const float* next = nullptr;
  std::int64_t next_lines = 0;
};

/// Queries whose gradients are found at a time, and keys that are looked at meanwhile: whole tiles
/// and panels of every instruction set, whose weights stay in the second cache.
constexpr std::int64_t kGradientQueries = 192, kGradientKeys = 192;

/// Keys, values and what is known of them, of one head; all rows are `width` wide.
struct AttentionGradient {
  const float *q, *k, *v, *out, *dout;
  std::int64_t ldq, ldk, ldv, ldo, lddo;
  const float* lse;  // log-sum-exp of each query's scores, ld_lse apart
  std::int64_t ld_lse;
  float *dq, *dk, *dv;  // added to
  std::int64_t lddq, lddk, lddv;
  std::int64_t queries, keys, width;
  bool causal;
  float scale;
  float* scratch;  // attention_gradient_scratch(keys, width) floats
  Dropout dropped = {};
};

struct AdamWStep {
  float *weight, *first, *second;  // [n] parameters and moments
  const float* gradient;           // [n]
  std::int64_t n;
  float factor;             // of the gradient (clipping, accumulation)
  float beta1, beta2;       // of the moments
  float step;               // rate / (1 - beta1^t)
  float second_scale, eps;  // 1 / (1 - beta2^t)
  float decay;              // what the weight is multiplied with: 1 - rate * decay
};

/// Products of matrices that are packed as they are multiplied, in one number format.
struct ProductKernels {
  std::int64_t depth;  // numbers in a word; sums are filled up with zeros to whole words
  /// Rows [0, m) of a [m, k] (or of the transpose of what lies there as [k, m]) -> groups of
  /// tile_rows, [ceil(m/tile_rows)][words][tile_rows], zeros where there are none.
  void (*pack_rows)(const float* a, std::int64_t stride, bool turned, std::int64_t m,
                    std::int64_t k, float* to);
  /// Columns [0, n) of b [k, n] (or of the transpose of [n, k]) -> panels of them,
  /// [ceil(n/panel)][words][panel], zeros where there are none.
  void (*pack_columns)(const float* b, std::int64_t stride, bool turned, std::int64_t n,
                       std::int64_t k, float* to);
  void (*tile)(const ProductTile& tile);
};

/// What only training needs; compiled for each instruction set as the rest of VectorKernels.
struct TrainingKernels {
  std::int64_t tile_rows;
  ProductKernels exact, rounded;  // f32; bf16 with sums in f32
  /// exact.pack_columns of the transpose of what lies as bf16, [n, k].
  void (*pack_half_columns)(const std::uint16_t* b, std::int64_t stride, std::int64_t n,
                            std::int64_t k, float* to);

  /// y = act(x); one that fuses().
  void (*activate)(Activation activation, const float* x, std::int64_t n, float* y);
  /// dx = initial + dy * act'(x); initial may be null or dx, dy may be dx
  void (*activate_gradient)(Activation activation, const float* x, const float* dy,
                            const float* initial, std::int64_t n, float* dx);
  /// One row; adds to dx, dweight and dbias (which may be null).
  void (*layer_norm_gradient)(const float* x, const float* weight, const float* dy, float eps,
                              std::int64_t width, float* dx, float* dweight, float* dbias);
  void (*rms_norm_gradient)(const float* x, const float* weight, const float* dy, float eps,
                            std::int64_t width, float* dx, float* dweight);
  /// Gradients of attention of one head of queries; adds to dq, dk, dv. Rounded: what is multiplied
  /// is rounded to bf16.
  void (*attention_gradient)(const AttentionGradient& arguments);
  void (*rounded_attention_gradient)(const AttentionGradient& arguments);
  /// log(sum e^x), and the sum of x; returns the largest x.
  float (*log_sum_exp)(const float* x, std::int64_t n, float* lse, float* sum);
  /// y = initial + factor * (e^(x - lse) - base); initial may be null or y, y may be x
  void (*softmax_gradient)(const float* x, std::int64_t n, float lse, float factor, float base,
                           const float* initial, float* y);
  /// y += factor * x
  void (*add_scaled)(const float* x, float factor, std::int64_t n, float* y);
  /// y += a * b
  void (*add_product)(const float* a, const float* b, std::int64_t n, float* y);
  double (*sum_of_squares)(const float* x, std::int64_t n);
  /// AdamW on n numbers: rate and the corrections of the moments are ready to use.
  void (*adamw)(const AdamWStep& step);
};

/// Floats of scratch memory one attention_gradient needs.
std::int64_t attention_gradient_scratch(std::int64_t keys, std::int64_t width);

}  // namespace tessera::kernels
