#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "vision/encoded.h"

namespace tessera::vision {

/// The numbers TIFF gives to what is read and written here.
enum TiffTag : std::uint32_t {
  kTiffWidth = 256,
  kTiffHeight = 257,
  kTiffBits = 258,
  kTiffCompression = 259,
  kTiffPhotometric = 262,
  kTiffFillOrder = 266,
  kTiffStripOffsets = 273,
  kTiffSamples = 277,
  kTiffRowsPerStrip = 278,
  kTiffStripBytes = 279,
  kTiffPlanar = 284,
  kTiffT4Options = 292,
  kTiffT6Options = 293,
  kTiffPredictor = 317,
  kTiffColorMap = 320,
  kTiffTileWidth = 322,
  kTiffTileHeight = 323,
  kTiffTileOffsets = 324,
  kTiffTileBytes = 325,
  kTiffExtraSamples = 338,
  kTiffSampleFormat = 339,
  kTiffJpegTables = 347,
  kTiffYcbcrSubsampling = 530,
  kTiffXmp = 700
};

/// The first directory of a TIFF file.
class TiffDirectory {
 public:
  explicit TiffDirectory(const Encoded& file);

  bool big_endian() const { return big_; }
  /// An unsigned number of 1 to 4 bytes in the file's byte order.
  std::uint32_t number(std::size_t at, std::size_t length) const {
    return big_ ? file_.big(at, length) : file_.little(at, length);
  }
  bool has(std::uint32_t tag) const { return entries_.contains(tag); }
  /// The bytes of a tag's values; empty where it is absent.
  std::span<const std::uint8_t> bytes(std::uint32_t tag) const;
  /// A tag's values, which must be integers; empty where it is absent.
  std::vector<std::uint32_t> values(std::uint32_t tag) const;
  /// The first value.
  std::uint32_t value(std::uint32_t tag, std::uint32_t fallback) const;

 private:
  struct Values {
    std::size_t at = 0, count = 0, size = 0;  // `size` bytes each; 0: a type that is of no interest
  };

  const Encoded& file_;
  bool big_;
  std::map<std::uint32_t, Values> entries_;
};

/// Writes TIFF files of one strip, little-endian.
class TiffWriter {
 public:
  void set(std::uint32_t tag, std::vector<std::uint32_t> values);
  void set_bytes(std::uint32_t tag, std::span<const std::uint8_t> bytes);
  /// The file; adds the tags of its only strip.
  std::vector<std::uint8_t> file(std::span<const std::uint8_t> strip);

 private:
  struct Entry {
    std::uint32_t type, count;
    std::vector<std::uint8_t> bytes;
  };
  std::map<std::uint32_t, Entry> entries_;
};

}  // namespace tessera::vision
