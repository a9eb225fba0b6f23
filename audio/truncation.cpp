#include "audio/truncation.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace tessera::audio {
namespace {

// Encoders pad: sound this much shorter than its header says is complete.
constexpr double kLengthTolerance = 0.25;

// RIFF (wav, avi) and FORM (aiff) files state their size; where it is wrong, FFmpeg says nothing.
// 0: not stated.
std::int64_t stated_bytes(ByteSource& source) {
  std::array<std::uint8_t, 8> head{};
  if (source.read_at(0, head.data(), 8) != 8) return 0;
  const bool big_endian = std::memcmp(head.data(), "FORM", 4) == 0;
  if (!big_endian && std::memcmp(head.data(), "RIFF", 4) != 0) return 0;
  std::uint32_t size = 0;
  for (std::size_t i = 0; i < 4; ++i) size = size << 8 | head[big_endian ? 4 + i : 7 - i];
  return size < 0x7fff0000 ? size + std::int64_t{8}
                           : 0;  // programs that can't seek back write -1 or the like
}

// Whether the last page of an Ogg file is whole and marked as the end of its stream; FFmpeg does
// not say when it is missing. A page has 27 bytes, then lengths (their number is the last of the
// 27), then as much content.
bool ogg_has_end(ByteSource& source) {
  constexpr std::int64_t kHeader = 27, kLargestPage = kHeader + 255 + 255 * 255;
  std::vector<std::uint8_t> tail(
      static_cast<std::size_t>(std::min(source.size(), 2 * kLargestPage)));
  const auto size = static_cast<std::int64_t>(tail.size());
  if (source.read_at(source.size() - size, tail.data(), size) != size) return false;
  for (std::int64_t at = size - kHeader; at >= 0; --at) {
    const std::uint8_t* page = tail.data() + at;
    if (std::memcmp(page, "OggS\0", 5) != 0) continue;
    std::int64_t end = at + kHeader + page[26];
    if (end > size) return false;
    for (int i = 0; i < page[26]; ++i) end += page[kHeader + i];
    return end <= size && (page[5] & 4) != 0;
  }
  return false;
}

bool is_ogg(ByteSource& source) {
  std::array<std::uint8_t, 4> head{};
  return source.read_at(0, head.data(), 4) == 4 && std::memcmp(head.data(), "OggS", 4) == 0;
}

}  // namespace

std::string cut_short(ByteSource& source, double declared_seconds, double seconds) {
  if (seconds < declared_seconds - kLengthTolerance) {
    return concat("the file states ", declared_seconds, " s, but ends after ", seconds, " s");
  }
  if (is_ogg(source) && !ogg_has_end(source))
    return concat("cut off: the Ogg stream's end is missing after ", seconds, " s");
  const std::int64_t stated = stated_bytes(source);
  if (stated <= source.size() + 16) return {};  // some writers count their header twice
  return concat("the file states ", stated, " bytes, but ends after ", source.size());
}

}  // namespace tessera::audio
