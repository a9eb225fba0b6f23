#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/activation.h"
#include "core/config.h"
#include "core/context.h"
#include "core/kv_cache.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera {

struct InPlaceMatrix;
struct LayerNorm;

struct LinearOptions {
  /// Applied to x before it is multiplied: rounded products do it while they round. Null: none.
  const LayerNorm* norm = nullptr;
  Activation activation = Activation::none;
  /// Added after the activation; [N, out]. Empty: nothing is added.
  Tensor residual;
  /// Dropped before that, while a tape is live.
  float dropout = 0;
};

/// [n, k] -> [k, n]: i8, or f32 of floats of any type.
Tensor transposed(const Tensor& matrix);

/// y = act(x W^T + b) + residual. Holds its weight packed for the kernels; the only type that knows
/// in which number format that is.
class Linear {
 public:
  Linear() = default;
  /// Whether `bias` is read. A family demands it unless its published models may lack it: a bias
  /// that is missing by mistake must not go unnoticed.
  enum class Bias { none, required, optional };
  /// Reads `weight` [out, in] (or int8 with `weight_scale`, or compressed-tensors' packed 4 bits)
  /// and `bias` [out].
  Linear(const Weights& w, std::int64_t in, std::int64_t out, Bias bias = Bias::required);
  /// From tensors: weight [out, in] of any type, bias [out] or empty, scales [out, 1] (f32) of an
  /// int8 weight or empty.
  Linear(const Tensor& weight, const Tensor& bias, Precision precision = Precision::f32,
         const Tensor& scales = {});
  /// GPT-2's Conv1D: reads `weight` [in, out] and `bias` [out]. The last `fine` outputs' numbers
  /// have 8 bits where others have 4. An int8 weight has a `weight_scale` [1, out]; packed 4 bits
  /// lie as Linear's.
  static Linear conv1d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t fine = 0);
  /// Several projections of the same input, those of the same precision as one product; the outputs
  /// lie side by side, biases that are not there count as zero.
  struct Part {
    Weights weights;
    std::int64_t out;
    Bias bias = Bias::required;
  };
  static Linear concat(const std::vector<Part>& parts, std::int64_t in);

  /// x [N, in] (rows may be strided) -> [N, out]
  Tensor operator()(Context& ctx, const Tensor& x, const LinearOptions& options = {}) const;

  std::int64_t in() const;
  std::int64_t out() const;
  /// Of the weight as it is multiplied.
  std::int64_t bytes() const;
  /// Whether numbers are rounded before they are multiplied, so that what comes out is not that of
  /// f32.
  bool rounds() const;
  /// Whether they are rounded to integers of 8 bits or fewer.
  bool in_bytes() const;
  explicit operator bool() const { return impl_ != nullptr; }
  /// Its matrices where they are multiplied as they lie (Precision::in_place), else null.
  const InPlaceMatrix* in_place() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

/// Rows of a table [V, D] of floats of any type: ids [T] -> [T, D] f32. Throws ArgumentError for an
/// id outside [0, V).
Tensor gather_rows(Context& ctx, const Tensor& table, std::span<const std::int32_t> ids);

struct LayerNorm {
  Tensor weight, bias;  // [D]
  float eps = 1e-5f;
  LayerNorm() = default;
  LayerNorm(const Weights& w, std::int64_t width, double eps);
  /// Throws ShapeError unless x is [N, D] with numbers of a row side by side.
  void check(const Tensor& x) const;
  Tensor operator()(Context& ctx, const Tensor& x /*[N, D]*/) const;
};

struct RmsNorm {
  Tensor weight;  // [D]
  float eps = 1e-6f;
  RmsNorm() = default;
  RmsNorm(const Weights& w, std::int64_t width, double eps);
  Tensor operator()(Context& ctx, const Tensor& x /*[N, D]*/) const;
};

/// Gives each row [D] a length of 1: the root mean square times the root of the width.
RmsNorm unit_norm(std::int64_t width);

/// Rows of a table, kept in the type of the file.
struct Embedding {
  Tensor table;   // [V, D], f32/f16/bf16/i8
  Tensor scales;  // [V, 1], only for i8
  Precision precision = Precision::f32;
  Embedding() = default;
  Embedding(const Weights& w, std::int64_t count, std::int64_t width);
  /// ids [T] -> rows [T, D] f32. Throws ArgumentError for an id outside [0, V).
  Tensor operator()(Context& ctx, std::span<const std::int32_t> ids) const;
  /// The table as an output layer (tied head): at most rounded to int8, for every token depends on
  /// it.
  Linear as_linear() const;
};

/// 1-D convolution over time. x [T, Cin] -> [Tout, Cout]; weight [Cout, Cin, K] as in PyTorch, zero
/// padding.
struct Conv1d {
  Linear weight;  // [Cout, K*Cin], the kernel's positions one after the other
  std::int64_t channels_in = 0, kernel = 0, stride = 1, padding = 0;
  bool channels_first = false;  // [Cout, Cin*K], as a weight lies that is multiplied in place
  Conv1d() = default;
  Conv1d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t kernel,
         std::int64_t stride, std::int64_t padding);
  Tensor operator()(Context& ctx, const Tensor& x, Activation activation = Activation::none) const;

 private:
  Tensor overlapping(Context& ctx, const Tensor& x, std::int64_t count) const;
  Tensor separate(Context& ctx, const Tensor& x, std::int64_t count) const;
};

/// Non-overlapping 2-D convolution (patch embedding): x [C, H, W] -> [H/p * W/p, Cout], patches in
/// reading order.
struct Conv2d {
  Linear weight;  // [Cout, C*p*p]
  std::int64_t channels_in = 0, patch = 0;
  Conv2d() = default;
  Conv2d(const Weights& w, std::int64_t in, std::int64_t out, std::int64_t patch,
         Linear::Bias bias = Linear::Bias::required);
  Tensor operator()(Context& ctx, const Tensor& x) const;
};

/// Rotary positions (Su et al. 2021) in HF's layout: number i of a head and number i + F turn
/// together, by position * frequencies[i].
struct Rope {
  Tensor frequencies;  // [F], radians a position; a head is 2F wide
  Rope() = default;
  /// From a decoder's config: `rope_theta`, and `rope_parameters` or (older) `rope_scaling` of type
  /// default, linear or llama3. FormatError for an odd width or values that make no sense,
  /// UnsupportedError for other types.
  Rope(const Config& config, std::int64_t head_width);
  /// Cosines and sines of these positions, [N, 2F]: computed once a pass, used by every layer.
  Tensor angles(Context& ctx, std::span<const std::int64_t> positions) const;
  /// Every head of x [N, heads*2F] (rows may be strided) turned by its row's angles -> [N,
  /// heads*2F].
  Tensor operator()(Context& ctx, const Tensor& x, const Tensor& angles) const;
};

/// y = act(x), a + b, a * b, element by element.
Tensor activate(Context& ctx, Activation activation, const Tensor& x);
Tensor add(Context& ctx, const Tensor& a, const Tensor& b);
Tensor multiply(Context& ctx, const Tensor& a, const Tensor& b);

/// The rows of all parts, one part after the other. At least one; all of one width.
Tensor join_rows(Context& ctx, const std::vector<Tensor>& parts);
/// x * factor.
Tensor scaled(Context& ctx, const Tensor& x, float factor);

/// While a tape is live: zeros in place of a share p of the numbers, the others larger to make up
/// for them; the same seed of the tape gives the same zeros. Else x itself.
Tensor dropout(Context& ctx, const Tensor& x, float p);

struct AttentionOptions {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 0;  ///< 0: as many as heads; fewer: grouped-query attention
  bool causal = false;        ///< query i sees keys up to (keys - queries + i)
  float scale = 0;            ///< 0: 1 / sqrt(head width)
  /// Queries, keys, values and weights may be rounded where that is faster (see Linear::rounds): to
  /// bf16, sums being f32, or to integers of 12 bits.
  bool rounded = false;
  /// They may be rounded to 8 bits, where that is faster and many queries see many keys (causal:
  /// that are bf16; see Linear::in_bytes); else `rounded` counts.
  bool in_bytes = false;
  /// While a tape is live: share of the weights (after softmax) that are dropped, the others being
  /// made larger to make up for them.
  float dropout = 0;
  std::uint64_t stream = 0;  ///< where it draws from, on a Record; given by the tape
};

/// softmax(q k^T * scale) v per head, block by block (never a T x T matrix).
/// q [Tq, heads*d], k and v [Tk, kv_heads*d], both f32 or both bf16; rows may be strided. -> [Tq,
/// heads*d]
void attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionOptions& options, Tensor& out);
Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options);
/// Several of them, whose threads work side by side: decoding steps of several sequences.
struct AttentionItem {
  Tensor q;
  KeyValues seen;
  Tensor out;
};
void attention(Context& ctx, std::span<AttentionItem> items, const AttentionOptions& options);
/// The same within each of several items, whose rows lie one after the other: item i has the rows
/// from begin[i] to begin[i + 1].
Tensor attention(Context& ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                 const AttentionOptions& options, std::span<const std::int64_t> begin);

}  // namespace tessera
