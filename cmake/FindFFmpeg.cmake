# FFmpeg::FFmpeg: libavformat, libavcodec, libavutil and libswresample, 4.4 or newer, as pkg-config knows them.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(FFmpeg QUIET IMPORTED_TARGET GLOBAL
                    "libavformat>=58.76" "libavcodec>=58.134" "libavutil>=56.70" "libswresample>=3.9")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FFmpeg REQUIRED_VARS FFmpeg_LINK_LIBRARIES VERSION_VAR FFmpeg_libavformat_VERSION
  REASON_FAILURE_MESSAGE "Install pkg-config, libavformat-dev, libavcodec-dev, libavutil-dev and libswresample-dev (Debian, Ubuntu) or ffmpeg.")
if(FFmpeg_FOUND AND NOT TARGET FFmpeg::FFmpeg)
  add_library(FFmpeg::FFmpeg INTERFACE IMPORTED GLOBAL)
  set_target_properties(FFmpeg::FFmpeg PROPERTIES INTERFACE_LINK_LIBRARIES PkgConfig::FFmpeg)
endif()
