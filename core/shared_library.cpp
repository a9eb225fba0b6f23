#include "core/shared_library.h"

#include <dlfcn.h>

#include "core/error.h"

namespace tessera {

SharedLibrary::SharedLibrary(const char* name, const char* purpose)
    : handle_(::dlopen(name, RTLD_LAZY | RTLD_LOCAL)), name_(name) {
  if (!handle_) {
    const char* reason = ::dlerror();
    throw UnsupportedError(concat(purpose, " are read with ", name,
                                  ", which can't be loaded; install it (",
                                  reason ? reason : "unknown reason", ")"));
  }
}

void* SharedLibrary::find(const char* symbol) const {
  void* found = ::dlsym(handle_, symbol);
  if (!found) {
    throw UnsupportedError(concat(name_, " has no ", symbol,
                                  ": it is not the version that this program was built with"));
  }
  return found;
}

}  // namespace tessera
