#pragma once
#include <cstdint>
#include <vector>

namespace tessera::audio {

/// Triangular filters on the Slaney mel scale from 0 to 8000 Hz, each scaled to unit area, as HF's
/// mel_filter_bank computes them for Whisper (there a dense [bins, mels] matrix). Private to
/// audio/.
struct MelFilters {
  struct Filter {
    std::int64_t first = 0;       ///< the first bin with a weight
    std::vector<double> weights;  ///< of bins first, first + 1, ...
  };
  std::vector<Filter> filters;

  /// For `bins` frequencies evenly spaced from 0 to rate / 2.
  MelFilters(std::int64_t mels, std::int64_t bins, std::int64_t rate);
};

}  // namespace tessera::audio
