#include "audio/ffmpeg.h"

#include <array>
#include <vector>

namespace tessera::audio::ffmpeg {
namespace {

// Up to here, channels without names are taken for the usual ones of their number
// (stereo, 5.1, 7.1). Beyond, FFmpeg's versions disagree on what is usual, and such files come from
// rows of microphones.
constexpr int kUsualChannels = 8;

#if TESSERA_FFMPEG_LAYOUT_STRUCT

int channels_of(const AVFrame& frame) { return frame.ch_layout.nb_channels; }

// The frame's layout; where it names no speakers, the usual one of its channel count.
AVChannelLayout placed_layout(const AVFrame& frame) {
  AVChannelLayout layout{};
  if (frame.ch_layout.order == AV_CHANNEL_ORDER_UNSPEC) {
    av_channel_layout_default(&layout, frame.ch_layout.nb_channels);
  } else if (av_channel_layout_copy(&layout, &frame.ch_layout) < 0) {
    throw std::bad_alloc();
  }
  return layout;
}

std::string describe_layout(const AVFrame& frame) {
  if (frame.ch_layout.order == AV_CHANNEL_ORDER_UNSPEC) return {};
  std::array<char, 512> text{};
  av_channel_layout_describe(&frame.ch_layout, text.data(), text.size());
  return text.data();
}

Owned<SwrContext> allocate(const AVFrame& frame, int rate, bool placed) {
  AVChannelLayout mono{}, in{};
  av_channel_layout_default(&mono, 1);
  if (placed) {
    in = placed_layout(frame);
  } else {
    in.order = AV_CHANNEL_ORDER_UNSPEC;
    in.nb_channels = channels_of(frame);
  }
  SwrContext* swr = nullptr;
  swr_alloc_set_opts2(&swr, &mono, AV_SAMPLE_FMT_FLT, rate, &in,
                      static_cast<AVSampleFormat>(frame.format), frame.sample_rate, 0, nullptr);
  av_channel_layout_uninit(&in);
  return Owned<SwrContext>(swr);
}

#else

int channels_of(const AVFrame& frame) { return frame.channels; }

std::string describe_layout(const AVFrame& frame) {
  return frame.channel_layout == 0 ? std::string() : std::to_string(frame.channel_layout);
}

Owned<SwrContext> allocate(const AVFrame& frame, int rate, bool placed) {
  std::int64_t in = 0;
  if (placed) {
    const bool known = frame.channel_layout != 0;
    in = known ? static_cast<std::int64_t>(frame.channel_layout)
               : av_get_default_channel_layout(frame.channels);
  }
  Owned<SwrContext> swr(swr_alloc_set_opts(nullptr, AV_CH_LAYOUT_MONO, AV_SAMPLE_FMT_FLT, rate, in,
                                           static_cast<AVSampleFormat>(frame.format),
                                           frame.sample_rate, 0, nullptr));
  if (swr) av_opt_set_int(swr.get(), "ich", frame.channels, 0);
  return swr;
}

#endif

}  // namespace

std::string error_text(int code) {
  if (code == AVERROR_EOF) return "it ends too early";
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
  av_strerror(code, text.data(), text.size());
  return text.data();
}

void quiet() {
  static const bool done = [] {
    if (av_log_get_level() == AV_LOG_INFO) av_log_set_level(AV_LOG_QUIET);
    return true;
  }();
  static_cast<void>(done);
}

SampleSpec spec_of(const AVFrame& frame) {
  return {frame.format, frame.sample_rate, channels_of(frame), describe_layout(frame)};
}

void set_channels(AVFrame& frame, int channels) {
#if TESSERA_FFMPEG_LAYOUT_STRUCT
  av_channel_layout_uninit(&frame.ch_layout);
  frame.ch_layout.order = AV_CHANNEL_ORDER_UNSPEC;
  frame.ch_layout.nb_channels = channels;
#else
  frame.channels = channels;
  frame.channel_layout = 0;
#endif
}

Owned<SwrContext> make_resampler(const AVFrame& frame, int rate) {
  const int channels = channels_of(frame);
  Owned<SwrContext> swr;
  if (channels <= kUsualChannels || !describe_layout(frame).empty()) {
    swr = allocate(frame, rate, true);
    if (swr && swr_init(swr.get()) >= 0) return swr;
  }
  const std::vector<double> equal(static_cast<std::size_t>(channels), 1.0 / channels);
  swr = allocate(frame, rate, false);
  if (!swr || swr_set_matrix(swr.get(), equal.data(), channels) < 0) return nullptr;
  if (swr_init(swr.get()) < 0) return nullptr;
  return swr;
}

}  // namespace tessera::audio::ffmpeg
