#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "text/decoder.h"
#include "text/language_model.h"

namespace tessera::text {

/// A language model that is a table, as in tests/golden/make_sampler.py: the logits of the token
/// after ids[0..p] are row (7*ids[p] + 13*ids[p-1] + 3*p) mod R of it. What it needs to know of the
/// past it takes from the cache, so mixed-up caches show.
class ToyLanguageModel : public LanguageModel {
 public:
  explicit ToyLanguageModel(const Tensor& table /*[R, V]*/, std::int64_t positions = 64)
      : table_(table), positions_(positions) {}

  std::int64_t width() const override { return 1; }
  std::int64_t vocab_size() const override { return table_.dim(1); }
  std::int64_t max_positions() const override { return positions_; }
  KvCache new_cache() const override { return KvCache(1); }

  Tensor embed(Context&, std::span<const std::int32_t> ids) const override {
    const std::vector<float> values(ids.begin(), ids.end());
    return Tensor::from(values, {static_cast<std::int64_t>(ids.size()), 1});
  }

  Tensor forward(Context& ctx, const Tensor& rows, std::span<const Sequence> sequences,
                 Outputs outputs) const override {
    ++forwards;
    Tensor hidden = Tensor::empty(rows.shape());  // the number of the table's row
    std::int64_t at = 0;
    for (const Sequence& s : sequences) {
      const Tensor own = rows.slice(at, at + s.rows);
      const std::int64_t past = s.cache->length();
      const Tensor ids = s.cache->layer(0).append(own, own).k;
      for (std::int64_t p = past; p < past + s.rows; ++p) {
        const auto id = [&](std::int64_t i) {
          return i < 0 ? 0 : static_cast<std::int64_t>(ids.data()[i]);
        };
        const std::int64_t row = (7 * id(p) + 13 * id(p - 1) + 3 * p) % table_.dim(0);
        hidden.data()[at++] = static_cast<float>(row);
      }
      longest = std::max(longest, s.cache->length());
    }
    return wanted_rows(ctx, hidden, {sequences, outputs});
  }

  const Linear& head() const override { return none_; }
  Tensor logits(Context&, const Tensor& hidden) const override {
    rows_of_logits += hidden.dim(0);
    Tensor out = Tensor::empty({hidden.dim(0), vocab_size()});
    for (std::int64_t i = 0; i < hidden.dim(0); ++i) {
      const Tensor row = table_[static_cast<std::int64_t>(hidden.data()[i])];
      std::copy_n(row.data(), row.numel(), out.data() + i * vocab_size());
    }
    return out;
  }

  // What was asked of it.
  mutable std::int64_t forwards = 0, rows_of_logits = 0, longest = 0;

 private:
  Tensor table_;
  Linear none_;
  std::int64_t positions_;
};

}  // namespace tessera::text
