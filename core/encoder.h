#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"
#include "core/layers.h"
#include "core/tape.h"

// The pre-norm transformer blocks that the towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et
// al. 2023) are made of, for images and for texts, with the names of HF's CLIPEncoderLayer.
namespace tessera {

struct EncoderConfig {
  std::int64_t width, layers, heads, inner;
  double eps;
  Activation activation;
  bool causal = false;

  /// What the config says; its keys that are absent count as `defaults`.
  static EncoderConfig read(const Config& config, const EncoderConfig& defaults);
};

struct EncoderMlp {
  Activation activation = Activation::none;
  Linear fc1, fc2;

  EncoderMlp() = default;
  EncoderMlp(const EncoderConfig& config, const Weights& w);
  /// x + fc2(act(fc1(norm(x))))
  Tensor operator()(Context& ctx, const Tensor& x, const LayerNorm& norm) const;
};

struct EncoderBlock {
  std::int64_t width = 0;
  AttentionOptions options;
  LayerNorm norm1, norm2;
  Linear qkv, attention_out;
  EncoderMlp mlp;

  EncoderBlock(const EncoderConfig& config, const Weights& w);
  /// x [T, D], the rows of several items one after the other: item i from begin[i] to begin[i + 1].
  Tensor operator()(Context& ctx, Tensor x, std::span<const std::int64_t> begin) const;
};

/// Blocks 0, 1, ... of `w`.
std::vector<EncoderBlock> encoder_blocks(const EncoderConfig& config, const Weights& w);

/// Through all blocks; what goes in and what comes out is observed as "hidden.<i>".
template <class Block>
Tensor through_blocks(Context& ctx, const std::vector<Block>& blocks, Tensor x,
                      std::span<const std::int64_t> begin) {
  const std::vector<std::int64_t> own(begin.begin(), begin.end());  // it may be run again
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    ctx.observe("hidden", static_cast<std::int64_t>(i), x);
    x = checkpointed(ctx, x, [&block = blocks[i], own](Context& c, const Tensor& in) {
      return block(c, in, own);
    });
  }
  ctx.observe("hidden", std::ssize(blocks), x);
  return x;
}

}  // namespace tessera
