#include "audio/streamed_log_mel.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace tessera::audio {
namespace {
// Of a sound that goes on: no frame reaches its end.
constexpr std::int64_t kNoEnd = std::int64_t{1} << 60;

std::int64_t whole_groups(std::int64_t frames) {
  return (frames + LogMel::kGroup - 1) / LogMel::kGroup * LogMel::kGroup;
}
}  // namespace

StreamedLogMel::StreamedLogMel(const LogMel& log_mel, SoundStream& sound)
    : log_mel_(log_mel), sound_(sound), loudest_(-std::numeric_limits<float>::infinity()) {}

bool StreamedLogMel::listen(Context& ctx) {
  const std::int64_t hop = log_mel_.hop(), reach = log_mel_.n_fft() / 2;
  if (total_ > 0) return false;
  const std::int64_t last = heard_ + whole_groups(log_mel_.frames());  // a window at a time
  hold(heard_ * hop - 2 * reach, std::max(last * hop + reach, log_mel_.samples_per_window() + 1));
  const std::int64_t end = begin_ + static_cast<std::int64_t>(buffer_.size());
  if (ended_) {
    if (end == 0) throw ArgumentError("there is no sound: not one sample");
    total_ = end;
    short_ = total_ <= log_mel_.samples_per_window();
    frames_ = short_ ? log_mel_.frames() : log_mel_.frames_of(total_);
    if (short_) return false;
  }
  const std::int64_t count = (ended_ ? frames_ : last) - heard_;
  const LogMel::Piece piece{buffer_, begin_, ended_ ? total_ : kNoEnd};
  if (count > 0) loudest_ = std::max(loudest_, log_mel_.loudest(ctx, piece, heard_, count));
  heard_ += count;
  return !ended_;
}

Tensor StreamedLogMel::window(Context& ctx, std::int64_t first, std::int64_t count) {
  if (short_) return log_mel_(ctx, buffer_).slice(first, first + count);
  if (!rewound_) {
    sound_.rewind();
    buffer_.clear();
    begin_ = 0;
    ended_ = false;
    rewound_ = true;
  }
  const std::int64_t hop = log_mel_.hop(), reach = log_mel_.n_fft() / 2;
  const std::int64_t from = first / LogMel::kGroup * LogMel::kGroup;
  const std::int64_t to = std::min(whole_groups(first + count), frames_);
  const std::int64_t end = std::min(to * hop + reach, total_);
  hold(from * hop - 2 * reach, end);
  if (begin_ + static_cast<std::int64_t>(buffer_.size()) < end)
    throw IoError(concat("the sound became shorter while it was read: it had ", seconds(), " s"));
  const Tensor part = log_mel_.part(ctx, {buffer_, begin_, total_}, from, to - from, loudest_);
  return part.slice(first - from, first - from + count);
}

void StreamedLogMel::hold(std::int64_t begin, std::int64_t end) {
  const auto have = static_cast<std::int64_t>(buffer_.size());
  const std::int64_t drop = std::clamp(begin - begin_, std::int64_t{0}, have);
  buffer_.erase(buffer_.begin(), buffer_.begin() + drop);
  begin_ += drop;
  const std::int64_t more = end - begin_ - static_cast<std::int64_t>(buffer_.size());
  if (more <= 0 || ended_) return;
  const std::size_t kept = buffer_.size();
  buffer_.resize(kept + static_cast<std::size_t>(more));
  const std::int64_t got = sound_.read(buffer_.data() + kept, more);
  buffer_.resize(kept + static_cast<std::size_t>(got));
  ended_ = got < more;
}

}  // namespace tessera::audio
