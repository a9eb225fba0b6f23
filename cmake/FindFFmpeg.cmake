# FFmpeg::Headers: those of libavformat, libavcodec, libavutil and libswresample, 4.4 or newer, as pkg-config knows
# them, and the names under which the program loads these libraries when it meets a sound.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(FFmpeg QUIET "libavformat>=58.76" "libavcodec>=58.134" "libavutil>=56.70" "libswresample>=3.9")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FFmpeg REQUIRED_VARS FFmpeg_LINK_LIBRARIES VERSION_VAR FFmpeg_libavformat_VERSION
  REASON_FAILURE_MESSAGE "Install pkg-config, libavformat-dev, libavcodec-dev, libavutil-dev and libswresample-dev (Debian, Ubuntu) or ffmpeg.")
if(FFmpeg_FOUND AND NOT TARGET FFmpeg::Headers)
  include("${CMAKE_CURRENT_LIST_DIR}/SharedLibraryName.cmake")
  add_library(FFmpeg::Headers INTERFACE IMPORTED GLOBAL)
  set_target_properties(FFmpeg::Headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${FFmpeg_INCLUDE_DIRS}")
  foreach(library avformat avcodec avutil swresample)
    set(file "${FFmpeg_LINK_LIBRARIES}")
    list(FILTER file INCLUDE REGEX "lib${library}\\.")
    shared_library_name(name "${file}")
    string(TOUPPER ${library} library)
    set_property(TARGET FFmpeg::Headers APPEND PROPERTY INTERFACE_COMPILE_DEFINITIONS "TESSERA_${library}=\"${name}\"")
  endforeach()
endif()
