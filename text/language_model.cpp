#include "text/language_model.h"

#include <mutex>

#include "core/error.h"
#include "core/family.h"

namespace tessera::text {

void LanguageModel::set_memory(Context&, const Tensor&, KvCache&) const {
  throw UnsupportedError(
      "this decoder has no cross-attention and can't read images or sound from a memory");
}

struct Decoder::State {
  Open open;
  std::once_flag once;
  std::unique_ptr<LanguageModel> opened;
};

Decoder::Decoder(Open open) : state_(std::make_shared<State>()) { state_->open = std::move(open); }

Decoder::Decoder(std::unique_ptr<LanguageModel> opened) : state_(std::make_shared<State>()) {
  state_->opened = std::move(opened);
}

const LanguageModel& Decoder::operator*() const {
  std::call_once(state_->once, [this] {
    if (!state_->opened) state_->opened = state_->open();
  });
  return *state_->opened;
}

namespace {
const LanguageFamily& family(const Config& config) {
  static const auto all = families();
  return family_of(all, config, "text decoder");
}
}  // namespace

std::unique_ptr<LanguageModel> load_language_model(const Config& config, const Weights& weights) {
  auto model = family(config).load(config, weights);
  model->cache_numbers_ = weights.cache_numbers();
  return model;
}

std::int64_t width_of_language_model(const Config& config) { return family(config).width(config); }

}  // namespace tessera::text
