#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/config.h"
#include "core/context.h"
#include "core/encoder.h"
#include "core/layers.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::text {

/// A text encoder: a text's tokens in, one vector out. Const and shared. That of CLIP (Radford et
/// al. 2021; HF's CLIPTextModel: causal, the end token's row is the text's) or of SigLIP (Zhai et
/// al. 2023; SiglipTextModel: every token sees all, the last row through a linear head).
class TextTower {
 public:
  /// Reads what `config` (model_type clip_text_model or siglip_text_model) says. Throws
  /// UnsupportedError for other types, FormatError, ShapeError.
  TextTower(const Config& config, const Weights& weights);

  std::int64_t width() const { return head_ ? head_.out() : c_.width; }  ///< D of a text's vector
  std::int64_t vocab_size() const { return tokens_.table.dim(0); }
  std::int64_t max_positions() const { return positions_.dim(0); }
  /// The token that each text is filled up with to max_positions(), as it was in training;
  /// negative: texts stay as long as they are.
  std::int32_t filler() const { return filler_; }
  /// Whether these ids hold the token whose row is the text's.
  bool is_complete(std::span<const std::int32_t> ids) const;

  /// Texts as ids, each with its end token -> [N, D]; each as it would be alone. Throws
  /// ArgumentError for one that is empty, longer than max_positions(), or with an id outside the
  /// vocabulary.
  Tensor encode(Context& ctx, std::span<const std::vector<std::int32_t>> texts) const;

 private:
  /// The row that stands for a text.
  enum class Pool { highest_id, first_end, last };
  std::int64_t pooled_row(std::span<const std::int32_t> ids) const;

  EncoderConfig c_;
  Pool pool_ = Pool::last;
  std::int32_t end_ = 0, filler_ = -1;
  Embedding tokens_;
  Tensor positions_;  // [P, D]
  std::vector<EncoderBlock> blocks_;
  LayerNorm norm_;
  Linear head_;  // none: the pooled row as it is
};

}  // namespace tessera::text
