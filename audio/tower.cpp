#include "audio/tower.h"

#include "core/family.h"

namespace tessera::audio {

std::unique_ptr<AudioTower> load_tower(const Config& config, const Weights& weights) {
  static const auto all = families();
  return family_of(all, config, "sound tower").load(config, int8_at_least(weights));
}

}  // namespace tessera::audio
