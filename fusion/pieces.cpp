#include "fusion/pieces.h"

#include <chrono>
#include <deque>
#include <optional>
#include <utility>

#include "core/profile.h"

namespace tessera::fusion {
namespace {

/// A piece under way, or waiting for those before it.
struct Pending {
  std::int64_t start, end;
  std::optional<Result> result;
};

}  // namespace

bool decode_pieces(Session& session, audio::SoundStream& sound, const text::LanguageModel& decoder,
                   std::int64_t together, const PieceWork& work, Timings& timings) {
  const auto begin = std::chrono::steady_clock::now();
  double encode = 0, prefill = 0;
  const double before = timings.seconds();
  audio::Pieces pieces(sound, session.model().log_mel->samples_per_window());
  std::deque<Pending> pending;
  bool cancelled = false;
  const auto take_finished = [&] {
    while (!pending.empty() && pending.front().result && !cancelled) {
      const Pending& first = pending.front();
      cancelled = first.result->stop_reason == text::StopReason::cancelled;
      if (!cancelled) work.take(first.start, first.end, *first.result);
      pending.pop_front();
    }
  };
  session.run(decoder, together, [&]() -> std::optional<text::GenerateJob> {
    cancelled = cancelled || session.cancelled();
    const auto start = std::chrono::steady_clock::now();
    const auto piece = cancelled ? std::nullopt : pieces.next();
    encode += seconds_since(start);
    if (!piece) return std::nullopt;
    pending.push_back({piece->start, piece->start + std::ssize(piece->samples), {}});
    Pending& own = pending.back();  // stays where it is while others come and go
    return work.prepare(*piece, [&](Result result) {
      encode += std::exchange(result.timings.encode, 0);
      prefill += std::exchange(result.timings.prefill, 0);
      result.timings.decode = 0;  // with the others' work in it
      own.result = std::move(result);
      take_finished();
    });
  });
  const double taking = timings.seconds() - before;  // what `take` did, and counted, itself
  timings.encode += encode;
  timings.prefill += prefill;
  timings.decode += seconds_since(begin) - encode - prefill - taking;
  return !cancelled;
}

}  // namespace tessera::fusion
