#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera::cli {

using Json = nlohmann::ordered_json;

/// Standard output was closed by its reader (`| head`): the program ends without a word.
struct ClosedPipe {};

/// Writes text and flushes. Throws ClosedPipe, IoError (disk full).
void print(std::string_view text);
void print_line(std::string_view text);
/// A name, spaces up to `width` (at least one), and its value.
void print_row(const std::string& name, const std::string& value, std::size_t width);
/// One JSON object as one line; invalid UTF-8 in it is replaced.
void print_json(const Json& object);

/// "tessera: ..." on standard error.
void report(std::string_view message);

/// A bar on standard error while that is a terminal; else nothing.
class Progress {
 public:
  /// label: what is worked on; unit: what `total` counts ("s", "files").
  Progress(std::string label, std::string unit, bool wanted);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void show(double done, double total, const std::string& more = {});
  /// Takes the bar away, so that something else can be printed.
  void clear();

 private:
  std::string label_, unit_;
  bool wanted_, shown_ = false;
};

/// A new folder among the system's temporary ones that goes, with all in it, when it is no longer
/// needed. Throws IoError.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

bool stdout_is_terminal();

/// "01:02.340", from an hour up "01:01:02.340".
std::string clock_time(double seconds);

}  // namespace tessera::cli
