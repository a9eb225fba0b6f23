#pragma once
#include <string>

namespace tessera {

/// A system library that is loaded when it is first needed, and stays loaded: those that read
/// images and sounds bring two hundred others, which would take longer to start than many a call
/// takes in all. The build knows only its headers and the name under which it is found.
class SharedLibrary {
 public:
  /// `name` as the loader knows it ("libavformat.so.59"), `purpose` for the message ("sounds").
  /// Throws UnsupportedError where it can't be loaded.
  SharedLibrary(const char* name, const char* purpose);

  /// A function by the name it has for the linker. Throws UnsupportedError where there is none.
  template <class Function>
  Function* get(const char* symbol) const {
    return reinterpret_cast<Function*>(find(symbol));
  }

 private:
  void* find(const char* symbol) const;
  void* handle_;
  std::string name_;
};

}  // namespace tessera
