#include "audio/pieces.h"

#include <algorithm>
#include <span>

namespace tessera::audio {
namespace {

/// Energy is looked at over so many steps (0.3 s): a pause, not the closing of a consonant.
constexpr std::int64_t kPause = 15;

/// Where to cut: in the middle of a pause in the last third, the last one that none before it is
/// quieter than by half.
std::int64_t quietest(std::span<const float> samples) {
  const auto steps = static_cast<std::int64_t>(samples.size()) / kPieceStep;
  if (steps < 3) return static_cast<std::int64_t>(samples.size());
  std::vector<double> energy(static_cast<std::size_t>(steps) + 1);  // of all steps before one
  for (std::int64_t i = 0; i < steps; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < kPieceStep; ++j) {
      const double x = samples[static_cast<std::size_t>(i * kPieceStep + j)];
      sum += x * x;
    }
    energy[static_cast<std::size_t>(i + 1)] = energy[static_cast<std::size_t>(i)] + sum;
  }
  const std::int64_t pause = std::min(kPause, std::max<std::int64_t>(1, steps / 3));
  std::int64_t best = steps - pause;
  double least = 0;
  for (std::int64_t i = steps - pause; i >= steps * 2 / 3; --i) {
    const double sum =
        energy[static_cast<std::size_t>(i + pause)] - energy[static_cast<std::size_t>(i)];
    if (i == steps - pause || sum < least / 2) {
      least = sum;
      best = i;
    }
  }
  return (best + pause / 2) * kPieceStep;
}

}  // namespace

std::optional<Pieces::Piece> Pieces::next() {
  // One sample more than a piece takes tells whether the sound goes on.
  const auto wanted = static_cast<std::size_t>(most_ + 1);
  const std::size_t had = ahead_.size();
  if (!ended_ && had < wanted) {
    ahead_.resize(wanted);
    const auto want = static_cast<std::int64_t>(wanted - had);
    const std::int64_t got = sound_.read(ahead_.data() + had, want);
    ended_ = got < want;
    ahead_.resize(had + static_cast<std::size_t>(got));
  }
  if (ahead_.empty()) return std::nullopt;
  auto count = static_cast<std::int64_t>(ahead_.size());
  if (count > most_) count = quietest(std::span(ahead_).first(static_cast<std::size_t>(most_)));
  Piece piece{start_, {ahead_.begin(), ahead_.begin() + count}};
  ahead_.erase(ahead_.begin(), ahead_.begin() + count);
  start_ += count;
  return piece;
}

}  // namespace tessera::audio
