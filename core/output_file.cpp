#include "core/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"

namespace tessera {

OutputFile::OutputFile(const std::filesystem::path& final_name) : final_(final_name) {
  // A device, a pipe or a folder is nothing that a file could take the place of.
  std::error_code ignored;
  if (std::filesystem::exists(final_, ignored) &&
      !std::filesystem::is_regular_file(final_, ignored))
    throw IoError(concat(final_.string(), ": is not an ordinary file; name another"));
  constexpr int kAttempts = 1000;
  for (int i = 0; fd_ < 0 && i < kAttempts; ++i) {
    name_ = final_;
    name_ += ".partial" + std::to_string(i);
    fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) break;
  }
  if (fd_ < 0) fail("can't be created", errno);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!published_) ::unlink(name_.c_str());
}

void OutputFile::write(const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ::ssize_t written = ::write(fd_, from, std::min(bytes, std::size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("can't be written", written < 0 ? errno : EIO);
    from += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void OutputFile::publish() {
  if (::fsync(fd_) != 0) fail("can't be written", errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail("can't be written", errno);
  if (::rename(name_.c_str(), final_.c_str()) != 0) fail("can't be put in place", errno);
  published_ = true;
  sync_directory(final_.has_parent_path() ? final_.parent_path() : std::filesystem::path("."));
}

void OutputFile::fail(const char* what, int error) const {
  throw IoError(concat(final_.string(), ": ", what, ": ", std::strerror(error)));
}

void write_file(const std::filesystem::path& file, std::string_view text) {
  OutputFile out(file);
  out.write(text);
  out.publish();
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError(concat(folder.string(), ": can't be created: ", error.message()));
}

void sync_directory(const std::filesystem::path& directory) {
  if (const int fd = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

}  // namespace tessera
