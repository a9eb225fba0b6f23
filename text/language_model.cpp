#include "text/language_model.h"

#include "core/error.h"
#include "core/family.h"

namespace tessera::text {

void LanguageModel::set_memory(Context&, const Tensor&, KvCache&) const {
  throw UnsupportedError(
      "this decoder has no cross-attention and can't read images or sound from a memory");
}

std::unique_ptr<LanguageModel> load_language_model(const Config& config, const Weights& weights) {
  static const auto all = families();
  return family_of(all, config, "text decoder").load(config, weights);
}

}  // namespace tessera::text
