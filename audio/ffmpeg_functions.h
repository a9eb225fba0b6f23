#pragma once
// FFmpeg's functions, each from its library at the first call: the last header of audio/ffmpeg.h.
// A function that is used and not listed here is an undefined reference when linking.
#include "core/shared_library.h"

namespace tessera::audio::ffmpeg {

inline const SharedLibrary& avutil() {
  static const SharedLibrary library(TESSERA_AVUTIL, "sounds");
  return library;
}
inline const SharedLibrary& avcodec() {
  static const SharedLibrary library(TESSERA_AVCODEC, "sounds");
  return library;
}
inline const SharedLibrary& avformat() {
  static const SharedLibrary library(TESSERA_AVFORMAT, "sounds");
  return library;
}
inline const SharedLibrary& swresample() {
  static const SharedLibrary library(TESSERA_SWRESAMPLE, "sounds");
  return library;
}

}  // namespace tessera::audio::ffmpeg

#define TESSERA_FROM(library, function)                                           \
  (*[] {                                                                          \
    static auto* const found =                                                    \
        ::tessera::audio::ffmpeg::library().get<decltype(::function)>(#function); \
    return found;                                                                 \
  }())

// clang-format off
#define av_channel_layout_copy TESSERA_FROM(avutil, av_channel_layout_copy)
#define av_channel_layout_default TESSERA_FROM(avutil, av_channel_layout_default)
#define av_channel_layout_describe TESSERA_FROM(avutil, av_channel_layout_describe)
#define av_channel_layout_uninit TESSERA_FROM(avutil, av_channel_layout_uninit)
#define av_dict_free TESSERA_FROM(avutil, av_dict_free)
#define av_dict_set TESSERA_FROM(avutil, av_dict_set)
#define av_frame_alloc TESSERA_FROM(avutil, av_frame_alloc)
#define av_frame_free TESSERA_FROM(avutil, av_frame_free)
#define av_frame_unref TESSERA_FROM(avutil, av_frame_unref)
#define av_free TESSERA_FROM(avutil, av_free)
#define av_freep TESSERA_FROM(avutil, av_freep)
#define av_get_default_channel_layout TESSERA_FROM(avutil, av_get_default_channel_layout)
#define av_log_get_level TESSERA_FROM(avutil, av_log_get_level)
#define av_log_set_level TESSERA_FROM(avutil, av_log_set_level)
#define av_malloc TESSERA_FROM(avutil, av_malloc)
#define av_opt_set_int TESSERA_FROM(avutil, av_opt_set_int)
#define av_strerror TESSERA_FROM(avutil, av_strerror)

#define av_codec_is_decoder TESSERA_FROM(avcodec, av_codec_is_decoder)
#define av_codec_iterate TESSERA_FROM(avcodec, av_codec_iterate)
#define av_packet_alloc TESSERA_FROM(avcodec, av_packet_alloc)
#define av_packet_free TESSERA_FROM(avcodec, av_packet_free)
#define av_packet_unref TESSERA_FROM(avcodec, av_packet_unref)
#define avcodec_alloc_context3 TESSERA_FROM(avcodec, avcodec_alloc_context3)
#define avcodec_find_decoder TESSERA_FROM(avcodec, avcodec_find_decoder)
#define avcodec_free_context TESSERA_FROM(avcodec, avcodec_free_context)
#define avcodec_get_name TESSERA_FROM(avcodec, avcodec_get_name)
#define avcodec_open2 TESSERA_FROM(avcodec, avcodec_open2)
#define avcodec_parameters_to_context TESSERA_FROM(avcodec, avcodec_parameters_to_context)
#define avcodec_receive_frame TESSERA_FROM(avcodec, avcodec_receive_frame)
#define avcodec_send_packet TESSERA_FROM(avcodec, avcodec_send_packet)

#define av_probe_input_buffer2 TESSERA_FROM(avformat, av_probe_input_buffer2)
#define av_read_frame TESSERA_FROM(avformat, av_read_frame)
#define avformat_alloc_context TESSERA_FROM(avformat, avformat_alloc_context)
#define avformat_close_input TESSERA_FROM(avformat, avformat_close_input)
#define avformat_find_stream_info TESSERA_FROM(avformat, avformat_find_stream_info)
#define avformat_open_input TESSERA_FROM(avformat, avformat_open_input)
#define avio_alloc_context TESSERA_FROM(avformat, avio_alloc_context)
#define avio_context_free TESSERA_FROM(avformat, avio_context_free)

#define swr_alloc_set_opts TESSERA_FROM(swresample, swr_alloc_set_opts)
#define swr_alloc_set_opts2 TESSERA_FROM(swresample, swr_alloc_set_opts2)
#define swr_convert TESSERA_FROM(swresample, swr_convert)
#define swr_free TESSERA_FROM(swresample, swr_free)
#define swr_get_out_samples TESSERA_FROM(swresample, swr_get_out_samples)
#define swr_init TESSERA_FROM(swresample, swr_init)
#define swr_set_matrix TESSERA_FROM(swresample, swr_set_matrix)
// clang-format on
