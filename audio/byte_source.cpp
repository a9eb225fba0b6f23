#include "audio/byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "core/error.h"

namespace tessera::audio {
namespace {

constexpr int kBufferBytes = 1 << 15;
constexpr std::int64_t kMaxStreamBytes = std::int64_t{1} << 30;
// What reading a file may cost: many times its size, since some containers jump to and fro, but not
// without end.
constexpr std::int64_t kFreeBytes = std::int64_t{64} << 20;
constexpr std::int64_t kBytesPerByte = 16;

std::ifstream open_file(const std::filesystem::path& file) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    const std::string reason = errno ? std::generic_category().message(errno) : "unknown reason";
    throw IoError(concat(file.string(), ": can't open: ", reason));
  }
  return in;
}

}  // namespace

ffmpeg::Owned<AVIOContext> ByteSource::open() {
  position_ = spent_ = 0;
  auto* buffer = static_cast<std::uint8_t*>(av_malloc(kBufferBytes));
  if (!buffer) throw std::bad_alloc();
  AVIOContext* io =
      avio_alloc_context(buffer, kBufferBytes, 0, this, read_callback, nullptr, seek_callback);
  if (!io) {
    av_free(buffer);
    throw std::bad_alloc();
  }
  return ffmpeg::Owned<AVIOContext>(io);
}

int ByteSource::read_callback(void* self, std::uint8_t* to, int n) {
  auto& source = *static_cast<ByteSource*>(self);
  if (source.spent_ > kFreeBytes + kBytesPerByte * source.size()) return AVERROR(EIO);
  const std::int64_t got = source.read_at(source.position_, to, n);
  source.spent_ += std::max<std::int64_t>(got, 1024);
  if (got < 0) return AVERROR(EIO);
  if (got == 0) return AVERROR_EOF;
  source.position_ += got;
  return static_cast<int>(got);
}

std::int64_t ByteSource::seek_callback(void* self, std::int64_t offset, int whence) {
  auto& source = *static_cast<ByteSource*>(self);
  if (whence & AVSEEK_SIZE) return source.size();
  std::int64_t base = 0;
  switch (whence & ~AVSEEK_FORCE) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = source.position_;
      break;
    case SEEK_END:
      base = source.size();
      break;
    default:
      return AVERROR(EINVAL);
  }
  // Past the end is allowed, as for files: there is nothing to read there.
  if (offset < -base || offset > INT64_MAX - base) return AVERROR(EINVAL);
  source.spent_ += 1024;
  source.position_ = base + offset;
  return source.position_;
}

std::int64_t MemorySource::read_at(std::int64_t offset, std::uint8_t* to, std::int64_t n) {
  n = std::clamp<std::int64_t>(size() - offset, 0, n);
  if (n > 0) std::memcpy(to, bytes_.data() + offset, static_cast<std::size_t>(n));
  return n;
}

FileSource::FileSource(const std::filesystem::path& file) : file_(open_file(file)) {
  file_.seekg(0, std::ios::end);
  size_ = static_cast<std::int64_t>(file_.tellg());
  if (!file_ || size_ < 0)
    throw IoError(concat(file.string(), ": can't read: its size is unknown"));
}

std::int64_t FileSource::read_at(std::int64_t offset, std::uint8_t* to, std::int64_t n) {
  file_.clear();
  file_.seekg(offset);
  file_.read(reinterpret_cast<char*>(to), n);
  return file_.bad() ? -1 : static_cast<std::int64_t>(file_.gcount());
}

std::vector<std::uint8_t> read_stream(const std::filesystem::path& file) {
  std::ifstream in = open_file(file);
  std::vector<std::uint8_t> bytes;
  while (in) {
    const std::size_t had = bytes.size();
    if (static_cast<std::int64_t>(had) > kMaxStreamBytes) {
      throw FormatError(
          concat(file.string(), ": more than ", kMaxStreamBytes >> 20,
                 " MiB come from what is not a regular file; store it in a file first"));
    }
    bytes.resize(had + (1 << 16));
    in.read(reinterpret_cast<char*>(bytes.data() + had), 1 << 16);
    bytes.resize(had + static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) throw IoError(concat(file.string(), ": reading failed"));
  return bytes;
}

}  // namespace tessera::audio
