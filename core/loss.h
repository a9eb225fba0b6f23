#pragma once
#include <cstdint>
#include <span>

#include "core/context.h"
#include "core/layers.h"
#include "core/tensor.h"

namespace tessera {

/// Targets of this value do not count.
constexpr std::int32_t kIgnored = -100;

/// How many targets count.
std::int64_t counted(std::span<const std::int32_t> targets);

/// The sum over rows of -log softmax(logits)[target], [1]; divide by counted(targets) for the mean.
/// logits [N, V]; with smoothing e, the target has probability 1 - e + e/V and every other token
/// e/V. `weights` multiply the rows' losses; empty: all are 1. Throws ArgumentError for a target
/// that is neither in [0, V) nor kIgnored.
Tensor cross_entropy(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                     float smoothing = 0, std::span<const float> weights = {});

/// A row of logits [V] on the way back from its loss.
struct LogitsRow {
  const float* logits;
  std::int64_t vocab;
  std::int32_t target;
  float smoothing;
  float total;   ///< the logarithm of the sum of the logits' exponentials
  float factor;  ///< of the loss
};
/// d [V] = initial + factor * d loss / d logits; initial may be null (zeros) or d, d may be the
/// logits.
void logits_gradient(const LogitsRow& row, const float* initial, float* d);

/// Logits that are in memory at once where they need not all be.
constexpr std::int64_t kLogitsAtATime = std::int64_t{1} << 26;

/// The sum of losses [1], and how many targets that count are the likeliest of all.
struct TokenLoss {
  Tensor loss;
  std::int64_t right = 0;
};

/// cross_entropy of head(x), x [N, D], without all of the logits [N, V] in memory: those of some
/// rows at a time, whose gradients are found at once (as Liger Kernel does, Hsu et al. 2024). An
/// output layer with a bias or LoRA has all of them while it is trained.
TokenLoss cross_entropy(Context& ctx, const Linear& head, const Tensor& x,
                        std::span<const std::int32_t> targets, float smoothing = 0,
                        std::span<const float> weights = {});

/// -log p(targets | logits), [1], summed over all alignments of the targets to the frames
/// (connectionist temporal classification, Graves et al. 2006): a frame says a label or `blank`,
/// repeats count once, blanks are left out. logits [T, V], not normalised; as PyTorch's ctc_loss of
/// log_softmax. Throws ArgumentError for labels that are blank or outside [0, V), and for more of
/// them than the frames have room for.
Tensor ctc_loss(Context& ctx, const Tensor& logits, std::span<const std::int32_t> targets,
                std::int32_t blank = 0);

/// How badly N rows a and b [N, D] find each other: the mean of cross-entropies over the rows of
/// cos(a_i, b_j) / temperature with i = j as the target, and over its columns, summed over N
/// (InfoNCE; CLIP, Radford et al. 2021). Divide by N for the mean.
Tensor contrastive_loss(Context& ctx, const Tensor& a, const Tensor& b, float temperature = 0.07f);
/// The same of exp(logit_scale) * cos(a_i, b_j), whose scale [1] may be learnt with the rows.
Tensor contrastive_loss(Context& ctx, const Tensor& a, const Tensor& b, const Tensor& logit_scale);
/// Each pair judged for itself: the sum over all i and j of -log sigmoid(z) where i = j and
/// -log sigmoid(-z) elsewhere, z = exp(logit_scale) * cos(a_i, b_j) + logit_bias (SigLIP, Zhai et
/// al. 2023). Divide by N for the mean, HF's loss. Scale and bias [1] may be learnt with the rows.
Tensor sigmoid_pair_loss(Context& ctx, const Tensor& a, const Tensor& b, const Tensor& logit_scale,
                         const Tensor& logit_bias);

}  // namespace tessera
