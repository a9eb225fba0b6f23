#include "audio/mel_filters.h"

#include <algorithm>
#include <cmath>

namespace tessera::audio {
namespace {

constexpr double kMaxHertz = 8000;

// Slaney's scale: linear below 1000 Hz (15 mel), logarithmic above.
constexpr double kLinearHertz = 1000, kLinearMel = 15;
double log_step() { return std::log(6.4) / 27; }

double mel_of(double hertz) {
  if (hertz < kLinearHertz) return 3 * hertz / 200;
  return kLinearMel + std::log(hertz / kLinearHertz) / log_step();
}

double hertz_of(double mel) {
  if (mel < kLinearMel) return 200 * mel / 3;
  return kLinearHertz * std::exp(log_step() * (mel - kLinearMel));
}

}  // namespace

MelFilters::MelFilters(std::int64_t mels, std::int64_t bins, std::int64_t rate) {
  std::vector<double> corner;  // filter m rises from corner m to m + 1 and falls to m + 2
  for (std::int64_t i = 0; i < mels + 2; ++i) {
    corner.push_back(
        hertz_of(mel_of(kMaxHertz) * static_cast<double>(i) / static_cast<double>(mels + 1)));
  }
  const double bin_hertz = static_cast<double>(rate / 2) / static_cast<double>(bins - 1);
  for (std::size_t m = 0; m < static_cast<std::size_t>(mels); ++m) {
    const double low = corner[m], top = corner[m + 1], high = corner[m + 2];
    Filter filter;
    for (std::int64_t bin = 0; bin < bins; ++bin) {
      const double hertz = bin_hertz * static_cast<double>(bin);
      const double weight = std::min((hertz - low) / (top - low), (high - hertz) / (high - top));
      if (weight <= 0) continue;
      if (filter.weights.empty()) filter.first = bin;
      filter.weights.push_back(weight * 2 / (high - low));
    }
    filters.push_back(std::move(filter));
  }
}

}  // namespace tessera::audio
