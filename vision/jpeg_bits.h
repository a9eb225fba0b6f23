#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "vision/encoded.h"
#include "vision/jpeg_segments.h"

namespace tessera::vision {

/// Bits of coded data, without the zero byte after each 0xff.
class JpegBitReader {
 public:
  JpegBitReader(const Encoded& file, std::size_t begin, std::size_t end)
      : file_(file), at_(file.bytes().data() + begin), end_(file.bytes().data() + end) {}

  /// The next bits, up to 32; zeros beyond the end.
  std::uint32_t peek(std::uint32_t count) {
    if (left_ < count) [[unlikely]] {
      refill();
      if (left_ < count)
        return static_cast<std::uint32_t>(buffer_ << (count - left_)) & mask(count);
    }
    return static_cast<std::uint32_t>(buffer_ >> (left_ - count)) & mask(count);
  }
  void drop(std::uint32_t count) {
    if (left_ < count) [[unlikely]] {
      refill();
      if (left_ < count)
        file_.fail(position(), "the file is truncated: the coded picture ends early");
    }
    left_ -= count;
  }
  /// Drops what is left before a restart marker, and the marker.
  void restart() {
    do {
      left_ = 0;
      refill();
    } while (left_ > 0);
    while (end_ - at_ > 1 && at_[0] == 0xff && at_[1] == 0xff) ++at_;
    if (end_ - at_ < 2 || at_[0] != 0xff || at_[1] < kJpegRst0 || at_[1] >= kJpegSoi)
      file_.fail(position(), "corrupt: expected a restart marker");
    at_ += 2;
  }
  std::size_t position() const { return static_cast<std::size_t>(at_ - file_.bytes().data()); }
  /// The first byte of which no bit was dropped.
  std::size_t end_of_used() const {
    const std::uint8_t* at = at_;
    for (std::uint32_t unused = left_ / 8; unused > 0; --unused)
      at -= at[-1] == 0 && at[-2] == 0xff ? 2 : 1;
    return static_cast<std::size_t>(at - file_.bytes().data());
  }

 private:
  static std::uint32_t mask(std::uint32_t count) {
    return static_cast<std::uint32_t>((std::uint64_t{1} << count) - 1);
  }
  void refill() {
    if (end_ - at_ >= 8 && left_ > 0) {
      std::uint64_t word = 0;
      for (int i = 0; i < 8; ++i) word = word << 8 | at_[i];
      constexpr std::uint64_t kOnes = 0x0101010101010101u;
      const bool has_ff = ((~word - kOnes) & word & (kOnes << 7)) != 0;
      if (!has_ff) {
        const std::uint32_t bytes = (64 - left_) / 8;
        buffer_ = buffer_ << 8 * bytes | word >> (64 - 8 * bytes);
        at_ += bytes;
        left_ += 8 * bytes;
        return;
      }
    }
    refill_by_bytes();
  }
  void refill_by_bytes() {
    while (left_ <= 56 && at_ < end_) {
      if (at_[0] == 0xff) {
        if (end_ - at_ < 2 || at_[1] != 0) return;  // a marker
        ++at_;
        buffer_ = buffer_ << 8 | 0xff;
      } else {
        buffer_ = buffer_ << 8 | at_[0];
      }
      ++at_;
      left_ += 8;
    }
  }

  const Encoded& file_;
  const std::uint8_t *at_, *end_;
  std::uint64_t buffer_ = 0;  // its lowest left_ bits are next
  std::uint32_t left_ = 0;
};

class JpegBitWriter {
 public:
  explicit JpegBitWriter(std::vector<std::uint8_t>& out) : out_(out) {}
  void bits(std::uint32_t value, std::uint32_t count) {
    while (count-- > 0) {
      byte_ = byte_ << 1 | (value >> count & 1);
      if (++used_ == 8) flush();
    }
  }
  /// Fills the byte with ones.
  void align() {
    while (used_ != 0) bits(1, 1);
  }

 private:
  void flush() {
    out_.push_back(static_cast<std::uint8_t>(byte_));
    if ((byte_ & 0xff) == 0xff) out_.push_back(0);
    used_ = 0;
    byte_ = 0;
  }
  std::vector<std::uint8_t>& out_;
  std::uint32_t byte_ = 0;
  int used_ = 0;
};

/// A code and the value after it, whose bits the symbol's lower half counts.
struct JpegCode {
  std::uint8_t bits = 0;  // of both; 0: no code
  std::uint8_t symbol = 0;
  JpegCode() = default;
  JpegCode(std::uint32_t length, std::uint8_t symbol_)
      : bits(static_cast<std::uint8_t>(length + symbol_ % 16)), symbol(symbol_) {}
};

class JpegHuffmanTable {
 public:
  JpegHuffmanTable() = default;
  /// Lengths (16 bytes) and symbols at `at`.
  JpegHuffmanTable(const Encoded& file, std::size_t at) {
    std::uint32_t next = 0;  // code
    std::size_t symbol = at + 16;
    for (std::uint8_t length = 1; length <= 16; ++length, next <<= 1) {
      const std::uint32_t count = file.u8(at + length - 1);
      if (next + count > 1u << length) file.fail(at, "a Huffman table with too many codes");
      first_[length - 1] = next;
      before_[length - 1] = symbols_.size();
      for (std::uint32_t i = 0; i < count; ++i, ++next) {
        symbols_.push_back(static_cast<std::uint8_t>(file.u8(symbol++)));
        if (length > kShort) continue;
        const std::uint32_t same = kShort - length;
        std::fill_n(short_.begin() + (next << same), 1 << same, JpegCode{length, symbols_.back()});
      }
      end_[length - 1] = next;
    }
  }
  std::size_t size() const { return 16 + symbols_.size(); }

  /// The code that comes next; it is not dropped.
  JpegCode find(const Encoded& file, JpegBitReader& in) const {
    const std::uint32_t bits = in.peek(16);
    const JpegCode code = short_[bits >> (16 - kShort)];
    if (code.bits > 0) [[likely]]
      return code;
    return find_long(file, in, bits);
  }

 private:
  JpegCode find_long(const Encoded& file, const JpegBitReader& in, std::uint32_t bits) const {
    for (std::uint32_t length = kShort + 1; length <= 16; ++length) {
      const std::uint32_t candidate = bits >> (16 - length);
      if (candidate >= first_[length - 1] && candidate < end_[length - 1])
        return {length, symbols_[before_[length - 1] + candidate - first_[length - 1]]};
    }
    file.fail(in.position(), "corrupt: bits that are no code");
  }

  static constexpr std::uint32_t kShort = 9;       // bits of codes found at once
  std::array<JpegCode, 1 << kShort> short_{};      // by the next bits
  std::array<std::uint32_t, 16> first_{}, end_{};  // codes of each length
  std::array<std::size_t, 16> before_{};           // symbols of shorter codes
  std::vector<std::uint8_t> symbols_;
};

}  // namespace tessera::vision
