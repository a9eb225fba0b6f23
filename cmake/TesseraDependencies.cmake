# Every foreign library, found once for all folders, so that each folder only names the targets it links. Those of
# TESSERA_LINKED_PACKAGES must be found again by whoever uses the installed static libraries (tesseraConfig.cmake); the
# others are headers only (or loaded at run time, as FFmpeg), which consumers never see.
set(TESSERA_LINKED_PACKAGES Threads OneDNN JPEG OpenCVParts Oniguruma Utf8proc ZLIB)

# Imported targets must be seen by whoever links our libraries, a parent project that uses add_subdirectory included.
macro(tessera_find target)
  if(NOT TARGET ${target})
    find_package(${ARGN} REQUIRED)
    set_target_properties(${target} PROPERTIES IMPORTED_GLOBAL TRUE)
  endif()
endmacro()

set(THREADS_PREFER_PTHREAD_FLAG ON)
tessera_find(Threads::Threads Threads)
tessera_find(OneDNN::OneDNN OneDNN 2.2)
tessera_find(JPEG::JPEG JPEG)
tessera_find(OpenCVParts::core OpenCVParts)
tessera_find(FFmpeg::Headers FFmpeg)
tessera_find(Oniguruma::Oniguruma Oniguruma)
tessera_find(Utf8proc::Utf8proc Utf8proc)
tessera_find(ZLIB::ZLIB ZLIB)
tessera_find(nlohmann_json::nlohmann_json nlohmann_json 3.9)
tessera_find(Stb::Stb Stb)
tessera_find(Eigen3::Eigen Eigen3 3.3)
if(TESSERA_BUILD_CLI)
  tessera_find(CLI11::CLI11 CLI11 2.0)
endif()
