#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/weights.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// A file under a temporary name beside its final one; removed unless published.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& final_name) : final_(final_name) {
    constexpr int kAttempts = 1000;
    for (int i = 0; fd_ < 0 && i < kAttempts; ++i) {
      name_ = final_;
      name_ += ".partial" + std::to_string(i);
      fd_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST) break;
    }
    if (fd_ < 0) fail("can't be created", errno);
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!published_) ::unlink(name_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(const void* data, std::size_t bytes) {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ::ssize_t written = ::write(fd_, from, std::min(bytes, std::size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail("can't be written", written < 0 ? errno : EIO);
      from += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }
  /// Puts the file under its final name once its bytes are on the disk.
  void publish() {
    if (::fsync(fd_) != 0) fail("can't be written", errno);
    if (::close(std::exchange(fd_, -1)) != 0) fail("can't be written", errno);
    if (::rename(name_.c_str(), final_.c_str()) != 0) fail("can't be put in place", errno);
    published_ = true;
    // The new name itself: not every file system lets a directory be synced.
    const fs::path directory = final_.has_parent_path() ? final_.parent_path() : fs::path(".");
    if (const int fd = ::open(directory.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) {
      ::fsync(fd);
      ::close(fd);
    }
  }

 private:
  [[noreturn]] void fail(const char* what, int error) const {
    throw IoError(concat(final_.string(), ": ", what, ": ", std::strerror(error)));
  }

  fs::path final_, name_;
  int fd_ = -1;
  bool published_ = false;
};

/// The reference writes wider types first, so that every tensor is aligned; this is its order.
int type_rank(DType type) {
  switch (type) {
    case DType::i64:
      return 0;
    case DType::f32:
      return 1;
    case DType::i32:
      return 2;
    case DType::bf16:
      return 3;
    case DType::f16:
      return 4;
    case DType::i8:
      return 5;
    case DType::u8:
      return 6;
  }
  return 7;
}

std::vector<const NamedTensor*> in_file_order(const fs::path& file,
                                              const std::vector<NamedTensor>& tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) {
    if (!t.tensor || t.name == "__metadata__")
      throw ArgumentError(concat(file.string(), ": \"", t.name, "\" is not a tensor to save"));
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return std::pair(type_rank(a->tensor.dtype()), std::string_view(a->name)) <
           std::pair(type_rank(b->tensor.dtype()), std::string_view(b->name));
  });
  std::vector<std::string_view> names;
  for (const NamedTensor* t : order) names.push_back(t->name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw ArgumentError(concat(file.string(), ": two tensors are named \"", *twice, "\""));
  return order;
}

/// Length and JSON text, padded to 8 bytes. Says "pt" like torch's files, without which
/// transformers does not load them.
std::string header_for(const std::vector<const NamedTensor*>& order) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::size_t at = 0;
  for (const NamedTensor* t : order) {
    std::vector<std::int64_t> shape;
    for (int i = 0; i < t->tensor.rank(); ++i) shape.push_back(t->tensor.dim(i));
    const std::size_t end = at + t->tensor.nbytes();
    nlohmann::ordered_json entry;
    entry["dtype"] = name_of(t->tensor.dtype());
    entry["shape"] = shape;
    entry["data_offsets"] = {at, end};
    header.emplace(t->name, std::move(entry));
    at = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = static_cast<char>(static_cast<std::uint64_t>(text.size()) >> (8 * i) & 0xff);
  return length + text;
}

}  // namespace

void save_safetensors(const fs::path& file, const std::vector<NamedTensor>& tensors) {
  const std::vector<const NamedTensor*> order = in_file_order(file, tensors);
  std::string header;
  try {
    header = header_for(order);
  } catch (const nlohmann::json::exception&) {
    throw ArgumentError(concat(file.string(), ": the name of a tensor is not UTF-8"));
  }
  TemporaryFile out(file);
  out.write(header.data(), header.size());
  for (const NamedTensor* t : order) {
    const Tensor tensor = t->tensor.is_contiguous() ? t->tensor : t->tensor.clone();
    out.write(tensor.raw(), tensor.nbytes());
  }
  out.publish();
}

}  // namespace tessera
