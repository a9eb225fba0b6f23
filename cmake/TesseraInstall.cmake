# `cmake --install` and what find_package(tessera) reads. The libraries are static: their foreign libraries are found
# again on the consumer's side, by the same Find modules.
include(CMakePackageConfigHelpers)
set(tessera_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/tessera")

get_property(tessera_libraries GLOBAL PROPERTY TESSERA_LIBRARIES)
install(TARGETS ${tessera_libraries} EXPORT tessera ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT tessera NAMESPACE tessera:: FILE tesseraTargets.cmake DESTINATION "${tessera_package_dir}")

get_property(tessera_headers GLOBAL PROPERTY TESSERA_PUBLIC_HEADERS)
foreach(header ${tessera_headers})
  get_filename_component(folder "${header}" DIRECTORY)
  install(FILES "${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/tessera/${folder}")
endforeach()
install(FILES "${PROJECT_BINARY_DIR}/generated/core/version.h" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/tessera/core")
if(TARGET tessera)
  install(TARGETS tessera RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(DIRECTORY models/default DESTINATION "${CMAKE_INSTALL_DATADIR}/tessera/models")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/tesseraConfig.cmake.in" "${PROJECT_BINARY_DIR}/tesseraConfig.cmake"
                              INSTALL_DESTINATION "${tessera_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/tesseraConfig.cmake" "${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake"
              cmake/FindOneDNN.cmake cmake/FindOpenCVParts.cmake cmake/SharedLibraryName.cmake
              cmake/FindOniguruma.cmake cmake/FindUtf8proc.cmake
        DESTINATION "${tessera_package_dir}")
