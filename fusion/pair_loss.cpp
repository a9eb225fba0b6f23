// What a dual encoder learns: ExampleLoss where images and texts are to find each other.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/loss.h"
#include "core/profile.h"
#include "core/tape.h"
#include "fusion/example_loss.h"

namespace tessera::fusion {

void ExampleLoss::open_pairs() {
  const bool has_bias = static_cast<bool>(model_->dual->logit_bias);
  if (!options_.pair_loss) options_.pair_loss = has_bias ? PairLoss::sigmoid : PairLoss::softmax;
  if (options_.pair_loss == PairLoss::sigmoid && !has_bias) {
    throw ArgumentError(concat(model_->path.string(),
                               ": the sigmoid loss needs a checkpoint with a logit_bias: a siglip "
                               "one, or one that train retrieval --loss sigmoid began"));
  }
  if (options_.texts != 1 || options_.sampled_tokens > 0 || !options_.rewards.empty() ||
      options_.label_smoothing > 0) {
    throw ArgumentError(concat(
        examples_.file.string(),
        ": pairs are learnt with one text an image and step, without label smoothing, sampled "
        "tokens and rewards"));
  }
  examples_ = pairs_of(std::move(examples_));
  dual_.emplace(model_);
  targets_ = size();
  for (const Example& example : examples_.list) {
    for (const std::string& text : example.texts)
      longest_ = std::max(longest_, std::ssize(dual_->ids_of(text)));
  }
}

const char* ExampleLoss::unit() const {
  return dual_ ? "pairs" : examples_.kind == ExampleKind::classification ? "classes" : "tokens";
}

void ExampleLoss::keep_bounds() const {
  if (!dual_ || options_.pair_loss == PairLoss::sigmoid) return;
  Tensor scale = model_->dual->logit_scale;  // shares its memory with the parameter
  scale.data()[0] = std::min(scale.data()[0], std::log(100.0f));
}

Tensor ExampleLoss::loss_of_pairs(Context& ctx, const Tensor& images, const Tensor& texts) const {
  const DualParts& parts = *model_->dual;
  return options_.pair_loss == PairLoss::sigmoid
             ? sigmoid_pair_loss(ctx, images, texts, parts.logit_scale, parts.logit_bias)
             : contrastive_loss(ctx, images, texts, parts.logit_scale);
}

/// All other images and texts of the batch are wrong answers, so no image may be in it twice.
ExampleLoss::Sum ExampleLoss::pair_loss(Context& ctx, std::span<const std::int64_t> which,
                                        std::int64_t turn) const {
  std::vector<std::int64_t> once;
  for (const std::int64_t i : which)
    if (!std::ranges::count(once, i)) once.push_back(i);
  std::vector<Tensor> rows;
  for (const Rows& image : image_rows(ctx, once, turn)) rows.push_back(image.rows);
  std::vector<std::vector<std::int32_t>> texts;
  for (const std::int64_t i : once) {
    const std::vector<std::string>& all = examples_.list[static_cast<std::size_t>(i)].texts;
    texts.push_back(dual_->ids_of(all[static_cast<std::size_t>(turn) % all.size()]));
  }
  const Tensor images = dual_->image_vectors(ctx, rows), captions = dual_->text_vectors(ctx, texts);
  Sum sum{loss_of_pairs(ctx, images, captions), std::ssize(once)};
  const TapeScope unrecorded(ctx, nullptr);
  const RmsNorm unit = unit_norm(dual_->width());
  const Tensor cosines = dual_->cosines(ctx, unit(ctx, images), unit(ctx, captions));
  for (std::int64_t i = 0; i < cosines.dim(0); ++i) {
    const float* row = cosines[i].data();
    sum.right += std::max_element(row, row + cosines.dim(1)) - row == i;
  }
  return sum;
}

}  // namespace tessera::fusion
