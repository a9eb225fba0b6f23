#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>
#include <vector>

#include "audio/ffmpeg.h"

namespace tessera::audio {

/// Bytes for FFmpeg to read: a regular file or memory, never a name that FFmpeg would interpret
/// itself. Counts what is read, so that a hostile file can't make a demuxer walk in circles.
/// Private to audio/.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Up to n bytes from `offset`; fewer only at the end, -1 where reading fails.
  virtual std::int64_t read_at(std::int64_t offset, std::uint8_t* to, std::int64_t n) = 0;
  virtual std::int64_t size() const = 0;

  /// FFmpeg's view of this source, which must outlive it; from the start, one at a time.
  ffmpeg::Owned<AVIOContext> open();

 private:
  static int read_callback(void* self, std::uint8_t* to, int n);
  static std::int64_t seek_callback(void* self, std::int64_t offset, int whence);

  std::int64_t position_ = 0;
  std::int64_t spent_ = 0;
};

class MemorySource : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  explicit MemorySource(std::vector<std::uint8_t> bytes)
      : owned_(std::move(bytes)), bytes_(owned_) {}
  std::int64_t read_at(std::int64_t offset, std::uint8_t* to, std::int64_t n) override;
  std::int64_t size() const override { return static_cast<std::int64_t>(bytes_.size()); }

 private:
  std::vector<std::uint8_t> owned_;
  std::span<const std::uint8_t> bytes_;
};

class FileSource : public ByteSource {
 public:
  /// Throws IoError.
  explicit FileSource(const std::filesystem::path& file);
  std::int64_t read_at(std::int64_t offset, std::uint8_t* to, std::int64_t n) override;
  std::int64_t size() const override { return size_; }

 private:
  std::ifstream file_;
  std::int64_t size_ = 0;
};

/// All of a pipe, device or the like, which can't be read twice. Throws IoError; FormatError above
/// 1 GiB.
std::vector<std::uint8_t> read_stream(const std::filesystem::path& file);

}  // namespace tessera::audio
