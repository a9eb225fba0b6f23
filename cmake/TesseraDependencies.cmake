# Every foreign library, found once for all folders, so that each folder only names the targets it links.
#   TESSERA_LINKED_PACKAGES   a consumer of the installed static libraries must find them, too (tesseraConfig.cmake)
#   TESSERA_HEADER_PACKAGES   headers only, needed to build Tessera and never seen by its consumers
set(TESSERA_LINKED_PACKAGES Threads OneDNN OpenCVParts FFmpeg Oniguruma Utf8proc)
set(TESSERA_HEADER_PACKAGES nlohmann_json Eigen3 Stb)

# Imported targets must be seen by whoever links our libraries, a parent project that uses add_subdirectory included.
macro(tessera_find target)
  if(NOT TARGET ${target})
    find_package(${ARGN} REQUIRED)
    set_target_properties(${target} PROPERTIES IMPORTED_GLOBAL TRUE)
  endif()
endmacro()

set(THREADS_PREFER_PTHREAD_FLAG ON)
tessera_find(Threads::Threads Threads)
tessera_find(OneDNN::OneDNN OneDNN 2.5)
tessera_find(OpenCVParts::core OpenCVParts)
tessera_find(FFmpeg::FFmpeg FFmpeg)
tessera_find(Oniguruma::Oniguruma Oniguruma)
tessera_find(Utf8proc::Utf8proc Utf8proc)
tessera_find(nlohmann_json::nlohmann_json nlohmann_json 3.9)
tessera_find(Eigen3::Eigen Eigen3 3.3 NO_MODULE)
tessera_find(Stb::Stb Stb)
