#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "audio/sound_stream.h"

namespace tessera::audio {

/// Cuts a sound into pieces of at most `most` samples. Where the sound goes on, a piece ends at a
/// quiet place in its last third, so that few words are cut in two; starts and cuts are
/// multiples of kPieceStep samples (where `most` is large enough for a choice). Reads the stream
/// once, from where it stands.
class Pieces {
 public:
  /// Keeps a reference.
  Pieces(SoundStream& sound, std::int64_t most) : sound_(sound), most_(most) {}

  struct Piece {
    std::int64_t start = 0;  ///< its first sample in the sound
    std::vector<float> samples;
  };
  /// Empty at the end. Throws as the stream does.
  std::optional<Piece> next();

 private:
  SoundStream& sound_;
  std::int64_t most_, start_ = 0;
  std::vector<float> ahead_;  // read, and not in a piece yet
  bool ended_ = false;
};

/// 20 ms.
constexpr std::int64_t kPieceStep = 320;

}  // namespace tessera::audio
