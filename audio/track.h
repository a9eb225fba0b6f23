#pragma once
#include <cstdint>
#include <string>
#include <utility>

#include "audio/byte_source.h"
#include "audio/ffmpeg.h"
#include "audio/resampler.h"

namespace tessera::audio {

/// The sound track of a container and its decoder. Private to audio/.
class Track {
 public:
  /// Opens the container and picks the track. Throws FormatError, UnsupportedError; messages don't
  /// name the file.
  explicit Track(ByteSource& source);

  /// Decodes the next packet; false: that was the end, or as far as it goes.
  bool decode(Resampler& out);

  /// What went wrong while decoding; empty: nothing.
  std::string problem() const;
  /// What the container says of the track's length in seconds; 0: nothing.
  double declared_seconds() const { return declared_seconds_; }

 private:
  void open_container(ByteSource& source);
  int pick_stream() const;
  void open_decoder();
  void feed(const AVPacket* packet, Resampler& out);
  void note(int code, const Resampler& out);

  // Destroyed in reverse: the container before the bytes it reads.
  ffmpeg::Owned<AVIOContext> io_;
  ffmpeg::Owned<AVFormatContext> container_;
  ffmpeg::Owned<AVCodecContext> decoder_;
  ffmpeg::Owned<AVPacket> packet_;
  ffmpeg::Owned<AVFrame> frame_;
  AVStream* stream_ = nullptr;
  double declared_seconds_ = 0;
  std::int64_t packets_left_ = 0;

  std::int64_t problems_ = 0;
  double first_problem_seconds_ = 0;
  std::string first_problem_;
};

}  // namespace tessera::audio
