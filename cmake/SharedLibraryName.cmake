# shared_library_name(variable file): the name under which the loader finds this shared library (libz.so.1 of libz.so).
function(shared_library_name variable file)
  execute_process(COMMAND "${CMAKE_READELF}" -d "${file}" OUTPUT_VARIABLE text ERROR_VARIABLE error)
  if(NOT text MATCHES "SONAME[^[]*\\[([^]]+)\\]")
    message(FATAL_ERROR "${file} is not a shared library with a name to load it by (${CMAKE_READELF} -d): ${error}")
  endif()
  set(${variable} "${CMAKE_MATCH_1}" PARENT_SCOPE)
endfunction()
