#include "vision/tower.h"

#include "core/error.h"
#include "core/family.h"

namespace tessera::vision {

Tensor VisionTower::encode(Context& ctx, const Tensor& pixels) const {
  return encode(ctx, std::span(&pixels, 1)).front();
}

std::vector<Tensor> VisionTower::encode(Context& ctx, std::span<const Tensor> pixels) const {
  std::vector<Tensor> rows;
  std::vector<std::int64_t> begin = {0};
  for (const Tensor& p : pixels) {
    rows.push_back(embed(ctx, p));
    begin.push_back(begin.back() + rows.back().dim(0));
  }
  if (rows.empty()) return rows;
  const Tensor all = run(ctx, join_rows(ctx, rows), begin);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = all.slice(begin[i], begin[i + 1]);
  return rows;
}

Tensor VisionTower::pool(Context& ctx, const Tensor& rows) const {
  const Tensor one = pool(ctx, std::span(&rows, 1));
  return one.reshape({one.dim(1)});
}

Tensor VisionTower::pool(Context&, std::span<const Tensor>) const {
  throw UnsupportedError("this checkpoint has no head that makes one vector of an image");
}

Tensor VisionTower::first_rows(Context& ctx, std::span<const Tensor> rows) {
  std::vector<Tensor> first;
  for (const Tensor& r : rows) first.push_back(r.slice(0, 1));
  return join_rows(ctx, first);
}

Tensor VisionTower::class_logits(Context&, const Tensor&) const {
  throw UnsupportedError(
      "this checkpoint has no classification head; open one that was fine-tuned to classify");
}

Tensor VisionTower::classify(Context& ctx, const Tensor& pixels) const {
  if (labels().empty()) return class_logits(ctx, Tensor());  // which throws
  const Tensor logits = class_logits(ctx, encode(ctx, pixels));
  return logits.reshape({logits.dim(1)});
}

std::unique_ptr<VisionTower> load_tower(const Config& config, const Weights& weights) {
  static const auto all = families();
  return family_of(all, config, "image tower").load(config, exact_if_automatic(weights));
}

}  // namespace tessera::vision
