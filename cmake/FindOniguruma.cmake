# Oniguruma::Oniguruma: the regular expressions of tokenizer.json, by the library that HF tokenizers use.
find_path(Oniguruma_INCLUDE_DIR oniguruma.h)
find_library(Oniguruma_LIBRARY onig)
mark_as_advanced(Oniguruma_INCLUDE_DIR Oniguruma_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Oniguruma REQUIRED_VARS Oniguruma_LIBRARY Oniguruma_INCLUDE_DIR
                                  REASON_FAILURE_MESSAGE "Install libonig-dev (Debian, Ubuntu) or oniguruma.")
if(Oniguruma_FOUND AND NOT TARGET Oniguruma::Oniguruma)
  add_library(Oniguruma::Oniguruma UNKNOWN IMPORTED GLOBAL)
  set_target_properties(Oniguruma::Oniguruma PROPERTIES
    IMPORTED_LOCATION "${Oniguruma_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${Oniguruma_INCLUDE_DIR}")
endif()
