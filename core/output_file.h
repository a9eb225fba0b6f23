#pragma once
#include <cstddef>
#include <filesystem>
#include <string_view>

namespace tessera {

/// A file that is written under a temporary name beside its final one and put in its place when
/// complete: whoever opens the final name sees the old file or the whole new one. Throws IoError,
/// also where that name is a device, a pipe or a folder.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& final_name);
  /// Removes what was not published.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Puts the file under its final name once its bytes are on the disk.
  void publish();

 private:
  [[noreturn]] void fail(const char* what, int error) const;

  std::filesystem::path final_, name_;
  int fd_ = -1;
  bool published_ = false;
};

/// A whole text file, put in its place when complete.
void write_file(const std::filesystem::path& file, std::string_view text);

/// A folder and those above it, where they are not there yet. Throws IoError.
void make_folders(const std::filesystem::path& folder);

/// Puts a new name of this directory on the disk, where its file system can.
void sync_directory(const std::filesystem::path& directory);

}  // namespace tessera
