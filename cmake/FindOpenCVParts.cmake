# OpenCVParts::core, the library of OpenCV 4 that is linked, and OpenCVParts::Headers: those of its image codecs and the
# name under which the program loads these when it meets an image. Found by file, because Debian ships OpenCV's own
# package file only with all of OpenCV (libopencv-dev, several hundred packages).
find_path(OpenCVParts_INCLUDE_DIR opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4)
find_library(OpenCVParts_core_LIBRARY opencv_core)
find_library(OpenCVParts_imgcodecs_LIBRARY opencv_imgcodecs)
mark_as_advanced(OpenCVParts_INCLUDE_DIR OpenCVParts_core_LIBRARY OpenCVParts_imgcodecs_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVParts
  REQUIRED_VARS OpenCVParts_INCLUDE_DIR OpenCVParts_core_LIBRARY OpenCVParts_imgcodecs_LIBRARY
  REASON_FAILURE_MESSAGE "Install libopencv-core-dev and libopencv-imgcodecs-dev (Debian, Ubuntu) or opencv.")
if(OpenCVParts_FOUND AND NOT TARGET OpenCVParts::core)
  include("${CMAKE_CURRENT_LIST_DIR}/SharedLibraryName.cmake")
  add_library(OpenCVParts::core UNKNOWN IMPORTED GLOBAL)
  set_target_properties(OpenCVParts::core PROPERTIES
    IMPORTED_LOCATION "${OpenCVParts_core_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${OpenCVParts_INCLUDE_DIR}")
  shared_library_name(name "${OpenCVParts_imgcodecs_LIBRARY}")
  add_library(OpenCVParts::Headers INTERFACE IMPORTED GLOBAL)
  set_target_properties(OpenCVParts::Headers PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${OpenCVParts_INCLUDE_DIR}"
    INTERFACE_COMPILE_DEFINITIONS "TESSERA_OPENCV_IMGCODECS=\"${name}\"")
endif()
