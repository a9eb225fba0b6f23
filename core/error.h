#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace tessera {

/// Joins its arguments into one string with operator<<.
template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// What every public function throws for bad files, input or configuration. The message says what
/// is wrong, where (path, tensor, key, byte), what was expected and what was found, and where
/// possible what to do about it. Programmer errors are assertions; ordinary outcomes (end of text,
/// cancelled, context full) are values in Result.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file or stream can't be opened, read or written.
class IoError : public Error {
 public:
  using Error::Error;
};

/// Foreign bytes (safetensors, JSON, image, sound, tokenizer) are malformed or truncated.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// A tensor has another shape than the model or the caller expects.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// Well-formed, but something this library does not do; says what it does instead.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};

/// An option or argument given by the caller is out of range or contradictory.
class ArgumentError : public Error {
 public:
  using Error::Error;
};

}  // namespace tessera
