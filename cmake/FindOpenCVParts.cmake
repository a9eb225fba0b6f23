# OpenCVParts::core, ::imgproc, ::imgcodecs: the three libraries of OpenCV 4 that are used. Found by file, because
# Debian ships OpenCV's own package file only with all of OpenCV (libopencv-dev, several hundred packages).
find_path(OpenCVParts_INCLUDE_DIR opencv2/imgcodecs.hpp PATH_SUFFIXES opencv4)
mark_as_advanced(OpenCVParts_INCLUDE_DIR)
foreach(part core imgproc imgcodecs)
  find_library(OpenCVParts_${part}_LIBRARY opencv_${part})
  mark_as_advanced(OpenCVParts_${part}_LIBRARY)
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCVParts
  REQUIRED_VARS OpenCVParts_INCLUDE_DIR OpenCVParts_core_LIBRARY OpenCVParts_imgproc_LIBRARY OpenCVParts_imgcodecs_LIBRARY
  REASON_FAILURE_MESSAGE "Install libopencv-core-dev, libopencv-imgproc-dev and libopencv-imgcodecs-dev (Debian, Ubuntu) or opencv.")
if(OpenCVParts_FOUND AND NOT TARGET OpenCVParts::core)
  foreach(part core imgproc imgcodecs)
    add_library(OpenCVParts::${part} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(OpenCVParts::${part} PROPERTIES
      IMPORTED_LOCATION "${OpenCVParts_${part}_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${OpenCVParts_INCLUDE_DIR}")
  endforeach()
  set_target_properties(OpenCVParts::imgproc PROPERTIES INTERFACE_LINK_LIBRARIES OpenCVParts::core)
  set_target_properties(OpenCVParts::imgcodecs PROPERTIES INTERFACE_LINK_LIBRARIES OpenCVParts::imgproc)
endif()
