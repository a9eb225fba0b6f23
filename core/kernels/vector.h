#pragma once
#include <cstdint>

#include "core/activation.h"
#include "core/kernels/byte_attention.h"
#include "core/kernels/dropout.h"
#include "core/kernels/half.h"
#include "core/kernels/integer.h"
#include "core/kernels/training.h"

namespace tessera::kernels {

/// Keys and values as rows: f32 or, where `half`, bf16 numbers.
struct KeyValueRows {
  const void *k, *v;
  std::int64_t ldk, ldv;
  bool half;
};

/// Keys and values of one head, laid out for attention_block: keys in panels of `panel` columns,
/// [ceil(count/panel)][width][panel]; values as rows, padded to whole panels. In bf16, numbers lie
/// in pairs: keys [ceil(count/panel)][width/2][panel][2], values [count/2][padded width][2].
///
/// In 12 bits, numbers lie in pairs as well, in 8 bits in fours: keys
/// [ceil(count/panel)][width/4][panel][4], less a mean of their column (key_mean_step(); it changes
/// no weight) and in 8 bits with 128 added; values [count/4][padded width][4], less the mean of
/// their column (which weights that add up to 1 give back). `units` [padded width] holds the means
/// of keys' columns, those of values' and what a unit of values is worth; then, panel by panel,
/// [panel] what a unit of each key is worth and [panel] what is added to its scores: what takes off
/// where sums begin, or for keys that are missing a very negative number.
struct PackedHead {
  const void* keys;
  const void* values;
  const float* units = nullptr;
};

/// Weights of columns, one column after the other: f32, or bf16 where `half` is not null.
struct WeightRows {
  const float* data;
  const std::uint16_t* half = nullptr;
};

/// Most rows of few_rows_panel and few_rows_dot.
constexpr std::int64_t kFewRows = 4;

struct AttentionBlock {
  const float* q;  // [rows, width], stride ldq
  std::int64_t ldq;
  std::int64_t rows;   // at most kQueryBlock
  std::int64_t first;  // causal only: row r sees the keys [0, first + r)
  bool causal;
  std::int64_t keys;   // number of keys
  std::int64_t width;  // of a head
  float scale;
  PackedHead head;
  float* out;  // [rows, width], stride ldo
  std::int64_t ldo;
  float* scratch;        // attention_scratch(width) floats
  Dropout dropped = {};  // dropping_block only
  float* lse =
      nullptr;  // where not null: log-sum-exp of each row's scores, ld_lse apart; not of integers
  std::int64_t ld_lse = 0;
};

/// Attention of blocks of queries, in one number format.
struct AttentionKernels {
  std::int64_t bytes;  // of a number of packed keys and values
  std::int64_t depth;  // numbers side by side: widths and counts are padded to a multiple of it
  /// Rows [count, width] -> the layout of PackedHead, for keys [begin, end), begin a multiple of
  /// panel.
  void (*pack_head)(const KeyValueRows& rows, std::int64_t begin, std::int64_t end,
                    std::int64_t width, void* keys, void* values, float* units);
  /// softmax(q k^T * scale) v with an online softmax over blocks of kKeyBlock keys.
  void (*block)(const AttentionBlock& block);
  /// The same with weights dropped after softmax (training). Null in integers.
  void (*dropping_block)(const AttentionBlock& block);
  /// In integers, before pack_head: the units of columns. Null for others, which need none.
  void (*measure_head)(const KeyValueRows& rows, std::int64_t keys, std::int64_t width,
                       float* units);
};

/// Queries that see the same keys, with all their heads, over some of these keys as they lie, so
/// that memory is read from one end to the other. What the parts give is put together by best and
/// total.
struct AttentionPart {
  const float* q;  // [queries, heads*width], stride ldq
  std::int64_t ldq, queries, heads, kv_heads, width;
  float scale;
  KeyValueRows rows;                    // [keys, kv_heads*width], or
  const std::uint8_t* bytes = nullptr;  // a block for each head of keys (byte_attention.h)
  std::int64_t keys;
  float* scores;             // [queries*heads, keys], scratch
  float *best, *total;       // [queries*heads] largest score; sum of exponentials against it
  float* out;                // [queries*heads, width] the values times these exponentials
  float* scratch = nullptr;  // of blocks: ByteAttentionKernels::scratch(width) floats
};

/// Most query rows in one call of attention_block.
constexpr std::int64_t kQueryBlock = 48;
/// Keys taken at a time.
constexpr std::int64_t kKeyBlock = 256;
/// Widest head of attention in integers.
constexpr std::int64_t kWidestIntegerHead = 256;

/// What happens to the sums of a product on their way out: y = act(sums + bias) + residual.
struct Finish {
  std::int64_t m, n;
  const float* sums;  // [m, n], row stride lds
  std::int64_t lds;
  const float* bias;  // [n] or null
  Activation activation;
  const float* residual;  // [m, n], row stride ldr, or null
  std::int64_t ldr;
  float* y;  // [m, n], row stride ldy
  std::int64_t ldy;
  bool coarse = false;  // the activation to an absolute error of 1.2e-4 is enough
};

/// The kernels that are written once and compiled for each instruction set (vector_impl.h). Which
/// one is used is decided at run time. Scalar twins stand in reference.h.
struct VectorKernels {
  const char* name;    // as vector_kernels() takes it
  std::int64_t panel;  // columns of a panel of packed keys; values are padded to a multiple of it

  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps,
                     std::int64_t width, float* y);
  void (*rms_norm)(const float* x, const float* weight, float eps, std::int64_t width, float* y);
  void (*finish)(const Finish& finish);
  void (*add)(const float* a, const float* b, std::int64_t n, float* y);
  void (*multiply)(const float* a, const float* b, std::int64_t n, float* y);
  /// The largest number, NaN left out; -infinity where there is none.
  float (*largest)(const float* x, std::int64_t n);
  /// The sum of e^(x[i] - largest), no x[i] being larger.
  double (*sum_exp)(const float* x, std::int64_t n, float largest);
  /// y [2*half]: (x[i], x[i + half]) turned by the angle of cosine cos[i] and sine sin[i].
  void (*rotate)(const float* x, const float* cos, const float* sin, std::int64_t half, float* y);
  /// One to kFewRows rows of x [m, k] times a panel of 64 columns [k][64] -> sums [m][64].
  void (*few_rows_panel)(const float* x, std::int64_t ldx, std::int64_t m, const float* panel,
                         std::int64_t k, float* sums);
  /// The same for n columns whose weights lie one after the other, [n, k] -> sums [m][n].
  void (*few_rows_dot)(const float* x, std::int64_t ldx, std::int64_t m, const WeightRows& weight,
                       std::int64_t n, std::int64_t k, float* sums);
  AttentionKernels exact, rounded;  // f32; keys, values and weights in bf16
  /// All in 12 bits, less rounded than in bf16, and in 8 bits (weights without a sign); heads up to
  /// kWidestIntegerHead wide. Slow unless the processor does what follows.
  AttentionKernels shorts, bytes;
  bool multiplies_shorts;  ///< pairs of 16-bit integers by one instruction, or one and an addition
  bool weighs_bytes;       ///< fours of 8-bit integers, in vectors of 64 bytes
  /// Few queries over a part of the keys. With keys and values in bf16 where bf16 pairs are
  /// multiplied natively, queries and weights are rounded to it as well; beside 8 bits they are
  /// rounded as activations are.
  void (*attention_part)(const AttentionPart& part);
  ByteAttentionKernels byte_attention;
  HalfKernels half;
  IntegerKernels integer;
  TrainingKernels training;

  bool has_avx512() const;  ///< with or without what came later
};

/// In integers, keys are less the mean of every so-manieth of them: any vector may be taken off all
/// of them, so that of many a part will do.
inline std::int64_t key_mean_step(std::int64_t keys) { return keys < 512 ? 1 : keys / 256; }

/// Floats of scratch memory one attention_block needs.
std::int64_t attention_scratch(std::int64_t width);
/// Floats of PackedHead::units.
std::int64_t attention_units(std::int64_t keys, std::int64_t width);

/// The best for this machine; TESSERA_ISA=generic|avx2|avx_vnni|avx512|avx512_vnni|avx512_bf16
/// (which has VNNI as well) in the environment forces a lower one.
const VectorKernels& vector_kernels();
/// The one of that name, or null where this machine (or build) lacks it.
const VectorKernels* vector_kernels(const char* name);

}  // namespace tessera::kernels
