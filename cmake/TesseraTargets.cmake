# One library per folder. tessera_library(name [DEPENDS public...] [PRIVATE private...]) takes every .cpp file of
# the folder and of its families/, and generates the list of families from the file names: families/foo.cpp defines
# `<Type> foo_family()`, and `<folder>/families.h` declares how the list is reached.

function(tessera_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter)
  if(TESSERA_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(TESSERA_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE} -fno-omit-frame-pointer
                                            -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${TESSERA_SANITIZE})
  endif()
endfunction()

function(tessera_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp"
       "${CMAKE_CURRENT_SOURCE_DIR}/families/*.cpp" "${CMAKE_CURRENT_SOURCE_DIR}/kernels/*.cpp")
  add_library(tessera_${name} STATIC ${sources})
  add_library(tessera::${name} ALIAS tessera_${name})
  tessera_options(tessera_${name})
  target_include_directories(tessera_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/tessera>)
  target_link_libraries(tessera_${name} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE})
  set_target_properties(tessera_${name} PROPERTIES EXPORT_NAME ${name})
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
  set(text "// Generated from the files in ${name}/families.\n#include \"${header}\"\n\nnamespace ${namespace} {\n"
           "${declarations}std::vector<${type}> families() { return {${calls}}; }\n}\n")
  string(CONCAT text ${text})
  file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/families_list.cpp" CONTENT "${text}" @ONLY)
  target_sources(tessera_${name} PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/families_list.cpp")
endfunction()
