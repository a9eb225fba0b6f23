#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/context.h"
#include "core/kv_cache.h"
#include "core/layers.h"
#include "core/tensor.h"
#include "core/weights.h"

namespace tessera::text {

/// Consecutive rows of one forward pass that belong to one sequence and continue its cache.
struct Sequence {
  KvCache* cache = nullptr;
  std::int64_t rows = 0;
};

/// Which rows of a forward pass are wanted: all, or the last one of each sequence, from which its
/// next token follows.
enum class Outputs { every_row, last_rows };

/// A GPT-type decoder: token embeddings in, logits out. Const and shared; all state is in the
/// caches.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual std::int64_t width() const = 0;       ///< D
  virtual std::int64_t vocab_size() const = 0;  ///< V
  virtual std::int64_t max_positions() const = 0;
  virtual bool has_cross_attention() const { return false; }
  virtual KvCache new_cache() const = 0;
  /// As its weights said when it was loaded.
  CacheNumbers cache_numbers() const { return cache_numbers_; }

  /// ids [T] -> embedding rows [T, D], positions not yet added.
  virtual Tensor embed(Context& ctx, std::span<const std::int32_t> ids) const = 0;
  /// Projects memory rows [R, D] to every layer's keys and values for cross-attention, once per
  /// memory.
  virtual void set_memory(Context& ctx, const Tensor& memory, KvCache& cache) const;
  /// rows [N, D], the sequences' rows one after the other (prefill: one of T rows; a step: B of one
  /// row each), at positions cache.length().. -> last hidden states [N, D], or [sequences, D] of
  /// their last rows, for less work. Each sequence's result is the same as it would be alone.
  virtual Tensor forward(Context& ctx, const Tensor& rows, std::span<const Sequence> sequences,
                         Outputs outputs = Outputs::every_row) const = 0;
  /// The output layer, [D] -> [V].
  virtual const Linear& head() const = 0;
  /// Hidden states [N, D] -> logits [N, V]: what head() makes of them.
  virtual Tensor logits(Context& ctx, const Tensor& hidden) const { return head()(ctx, hidden); }

 private:
  friend std::unique_ptr<LanguageModel> load_language_model(const Config&, const Weights&);
  CacheNumbers cache_numbers_ = CacheNumbers::automatic;
};

/// A decoder that is opened when it is first asked for, by whichever thread that is; or none.
class Decoder {
 public:
  using Open = std::function<std::unique_ptr<LanguageModel>()>;
  Decoder() = default;
  explicit Decoder(Open open);
  Decoder(std::unique_ptr<LanguageModel> opened);

  explicit operator bool() const { return state_ != nullptr; }
  /// Throws what opening it throws.
  const LanguageModel& operator*() const;
  const LanguageModel* operator->() const { return &**this; }

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// How a decoder family is found: by `model_type` of its config.
struct LanguageFamily {
  std::vector<std::string> model_types;
  std::unique_ptr<LanguageModel> (*load)(const Config& config, const Weights& weights);
  std::int64_t (*width)(const Config& config);  ///< D, before its weights are read
};
std::vector<LanguageFamily> families();
/// Throws UnsupportedError naming the known types.
std::unique_ptr<LanguageModel> load_language_model(const Config& config, const Weights& weights);
std::int64_t width_of_language_model(const Config& config);

}  // namespace tessera::text
