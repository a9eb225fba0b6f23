#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::train {

/// Numbers over steps, in the form that TensorBoard reads (records of `Event` messages, as its
/// RecordWriter writes them). Every record is on its way to the disk when append() returns; a file
/// that is cut off loses its last record only.
class EventFile {
 public:
  /// A new file events.out.tfevents.<seconds>.<name> in `folder`, which tells readers to forget
  /// what other files there say of steps from `first_step` on. Throws IoError.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);
  const std::filesystem::path& path() const { return path_; }

  using Scalars = std::vector<std::pair<std::string, double>>;
  void append(std::int64_t step, const Scalars& scalars) const;

 private:
  void write(std::string_view event) const;
  std::filesystem::path path_;
};

/// CRC-32C (Castagnoli) of these bytes.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace tessera::train
