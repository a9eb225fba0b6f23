#pragma once
// The one place that includes FFmpeg and knows its versions: 4.4 (Ubuntu 22.04) to 7 (Debian 13).
// Private to audio/.
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/channel_layout.h>
#include <libavutil/frame.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>
}

#include <cstdint>
#include <memory>
#include <string>

#include "audio/ffmpeg_functions.h"

namespace tessera::audio::ffmpeg {

// FFmpeg 5.0 made its descriptions const; 5.1 replaced channel masks by AVChannelLayout.
#if LIBAVFORMAT_VERSION_MAJOR >= 59
using InputFormat = const AVInputFormat;
#else
using InputFormat = AVInputFormat;
#endif
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 24, 100)
#define TESSERA_FFMPEG_LAYOUT_STRUCT 1
#else
#define TESSERA_FFMPEG_LAYOUT_STRUCT 0
#endif

struct Close {
  void operator()(AVFormatContext* p) const { avformat_close_input(&p); }
  void operator()(AVCodecContext* p) const { avcodec_free_context(&p); }
  void operator()(AVFrame* p) const { av_frame_free(&p); }
  void operator()(AVPacket* p) const { av_packet_free(&p); }
  void operator()(SwrContext* p) const { swr_free(&p); }
  void operator()(AVIOContext* p) const {
    av_freep(&p->buffer);
    avio_context_free(&p);
  }
};
template <class T>
using Owned = std::unique_ptr<T, Close>;

/// FFmpeg's words for an error code.
std::string error_text(int code);

/// Silences FFmpeg, whose log level belongs to the whole process: done once, and only where the
/// host program has left the level at its default. A host that sets a level of its own, before or
/// after, keeps it.
void quiet();

/// What a resampler has to know of a frame. Frames whose specs are equal can go through the same
/// one.
struct SampleSpec {
  int format = AV_SAMPLE_FMT_NONE;
  int rate = 0;
  int channels = 0;
  std::string layout;  // FFmpeg's description; empty where the speakers are not known
  bool operator==(const SampleSpec&) const = default;
};
SampleSpec spec_of(const AVFrame& frame);

/// Gives a frame so many channels, without saying which they are.
void set_channels(AVFrame& frame, int channels);

/// A resampler from `frame`'s samples to mono float at `rate`, mixed as FFmpeg does by default;
/// channels without known places (ten microphones, ambisonics) count equally. Null where FFmpeg
/// can't do it.
Owned<SwrContext> make_resampler(const AVFrame& frame, int rate);

}  // namespace tessera::audio::ffmpeg
