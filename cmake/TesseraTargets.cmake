# One library per folder.
configure_file("${PROJECT_SOURCE_DIR}/cmake/version.h.in" "${PROJECT_BINARY_DIR}/generated/core/version.h" @ONLY)

# tessera_options(target): the language, warnings and sanitizers of everything that is ours.
function(tessera_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter -Wno-missing-field-initializers)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    target_compile_options(${target} PRIVATE -Wno-restrict)  # GCC 12 sees one in every "literal" + std::string
  endif()
  if(TESSERA_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(TESSERA_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer
                                            -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE})
  endif()
endfunction()

# tessera_compile_quickly(target): for code that does no heavy work itself (tests, the command): a Release build that
# optimises it fully would take a third longer and gain nothing.
function(tessera_compile_quickly target)
  target_compile_options(${target} PRIVATE "$<$<CONFIG:Release>:-O1>")
endfunction()

# tessera_precompile(target headers... | REUSE_FROM other): headers that take longer to read than the code that includes
# them, read once. Every file still includes what it uses.
function(tessera_precompile target)
  if(ARGV1 STREQUAL "REUSE_FROM")
    target_precompile_headers(${target} ${ARGN})
  else()
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")  # what ccache needs
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  else()
    target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")
  endif()
endfunction()

# tessera_library(name HEADERS public... [DEPENDS ours...] [PRIVATE foreign...] [HEADER_ONLY foreign...]): the static
# library of this folder, from every .cpp file of it, its families/ and its kernels/. HEADERS are installed and free of
# foreign includes; all other headers are the library's own business. PRIVATE libraries are linked by whoever links
# this one; HEADER_ONLY ones are needed to build it and then forgotten.
function(tessera_library name)
  cmake_parse_arguments(ARG "" "" "HEADERS;DEPENDS;PRIVATE;HEADER_ONLY" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp"
       "${CMAKE_CURRENT_SOURCE_DIR}/families/*.cpp" "${CMAKE_CURRENT_SOURCE_DIR}/kernels/*.cpp")
  add_library(tessera_${name} STATIC ${sources})
  add_library(tessera::${name} ALIAS tessera_${name})
  tessera_options(tessera_${name})
  target_include_directories(tessera_${name} PUBLIC
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR};${PROJECT_BINARY_DIR}/generated>"
    "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/tessera>")
  target_link_libraries(tessera_${name} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE})
  foreach(library ${ARG_HEADER_ONLY})
    target_link_libraries(tessera_${name} PRIVATE "$<BUILD_INTERFACE:${library}>")
  endforeach()

  list(TRANSFORM ARG_HEADERS PREPEND "${name}/")
  set_target_properties(tessera_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY TESSERA_LIBRARIES tessera_${name})
  set_property(GLOBAL APPEND PROPERTY TESSERA_PUBLIC_HEADERS ${ARG_HEADERS})
endfunction()

# tessera_families(name Type namespace header): writes families_list.cpp, which defines
# `std::vector<Type> <namespace>::families()` calling `foo_family()` for every families/foo.cpp.
function(tessera_families name type namespace header)
  file(GLOB files CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}/families"
       "${CMAKE_CURRENT_SOURCE_DIR}/families/*.cpp")
  set(declarations "")
  set(calls "")
  foreach(file ${files})
    get_filename_component(stem ${file} NAME_WE)
    string(APPEND declarations "${type} ${stem}_family();\n")
    string(APPEND calls "${stem}_family(), ")
  endforeach()
  string(CONCAT text "// Generated from the files in ${name}/families.\n#include \"${header}\"\n\nnamespace ${namespace} {\n"
         "${declarations}std::vector<${type}> families() { return {${calls}}; }\n}  // namespace ${namespace}\n")
  file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/families_list.cpp" CONTENT "${text}" @ONLY)
  target_sources(tessera_${name} PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/families_list.cpp")
endfunction()
