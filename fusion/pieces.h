#pragma once
#include <cstdint>
#include <functional>

#include "audio/pieces.h"
#include "fusion/session.h"

// Transcribing a sound in pieces that know nothing of each other.
namespace tessera::fusion {

struct PieceWork {
  /// The job of a piece, which hands on its result.
  std::function<text::GenerateJob(const audio::Pieces::Piece&, std::function<void(Result)>)>
      prepare;
  /// Is given the results of the pieces, of samples [start, end), in their order; of a cancelled
  /// run up to the first that was not decoded to its end.
  std::function<void(std::int64_t start, std::int64_t end, const Result&)> take;
};

/// Cuts a sound into windows of the model at quiet places and decodes `together` of them side by
/// side. False where it was cancelled before the end. What prepare and take throw ends it. Adds to
/// `timings` what reading and the results' `encode` (encode), their `prefill`, and all else
/// (decode) took; the results come without.
bool decode_pieces(Session& session, audio::SoundStream& sound, const text::LanguageModel& decoder,
                   std::int64_t together, const PieceWork& work, Timings& timings);

}  // namespace tessera::fusion
