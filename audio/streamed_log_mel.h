#pragma once
#include <vector>

#include "audio/log_mel.h"
#include "audio/sound_stream.h"

namespace tessera::audio {

/// The log-mel of a sound of any length, window by window in constant memory. The sound is read
/// twice, first for its length and its loudest frame: the frames are those of LogMel::whole(), or
/// of LogMel::operator() for a sound that is not longer than one window.
class StreamedLogMel {
 public:
  /// Keeps references to both.
  StreamedLogMel(const LogMel& log_mel, SoundStream& sound);

  /// First reading: takes some more of the sound, false once all of it was heard. Throws as the
  /// sound does; ArgumentError for a sound without a sample.
  bool listen(Context& ctx);
  /// Frames and seconds of the sound; then known. A short sound counts as one whole window.
  std::int64_t frames() const { return frames_; }
  double seconds() const { return static_cast<double>(total_) / kSampleRate; }

  /// Frames [first, first + count), which there are -> [count, mels]. `first` never goes back.
  /// Throws IoError where the sound has become another one.
  Tensor window(Context& ctx, std::int64_t first, std::int64_t count);

 private:
  /// Makes buffer_ reach from `begin` to `end`, or to the end of the sound.
  void hold(std::int64_t begin, std::int64_t end);

  const LogMel& log_mel_;
  SoundStream& sound_;
  std::vector<float> buffer_;  // samples from the begin_th on
  std::int64_t begin_ = 0;
  bool ended_ = false;  // the stream gave its last sample

  std::int64_t heard_ = 0;  // frames of the first reading
  float loudest_;
  std::int64_t total_ = 0, frames_ = 0;
  bool short_ = false, rewound_ = false;
};

}  // namespace tessera::audio
