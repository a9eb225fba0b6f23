#include "vision/tiff_directory.h"

#include <algorithm>

namespace tessera::vision {
namespace {

enum Type : std::uint32_t { kByte = 1, kAscii = 2, kShort = 3, kLong = 4, kUndefined = 7 };

std::size_t size_of_type(std::uint32_t type) {
  switch (type) {
    case kByte:
    case kAscii:
    case kUndefined:
      return 1;
    case kShort:
      return 2;
    case kLong:
      return 4;
    default:
      return 0;
  }
}

void put(std::vector<std::uint8_t>& out, std::size_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> 8 * i));
}

}  // namespace

TiffDirectory::TiffDirectory(const Encoded& file) : file_(file), big_(file.has(0, "MM")) {
  const std::size_t at = number(4, 4), count = number(at, 2);
  file.part(at + 2, count * 12);
  for (std::size_t entry = at + 2; entry < at + 2 + count * 12; entry += 12) {
    Values values{entry + 8, number(entry + 4, 4), size_of_type(number(entry + 2, 2))};
    if (values.size * values.count > 4) values.at = number(entry + 8, 4);
    entries_.emplace(number(entry, 2), values);
  }
}

std::span<const std::uint8_t> TiffDirectory::bytes(std::uint32_t tag) const {
  const auto found = entries_.find(tag);
  if (found == entries_.end()) return {};
  return file_.part(found->second.at, found->second.size * found->second.count);
}

std::vector<std::uint32_t> TiffDirectory::values(std::uint32_t tag) const {
  const auto found = entries_.find(tag);
  if (found == entries_.end()) return {};
  const Values& stored = found->second;
  if (stored.size == 0) file_.fail(stored.at, "tag ", tag, " is not of integers");
  file_.part(stored.at, stored.size * stored.count);
  std::vector<std::uint32_t> values(stored.count);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = number(stored.at + i * stored.size, stored.size);
  return values;
}

std::uint32_t TiffDirectory::value(std::uint32_t tag, std::uint32_t fallback) const {
  const auto all = values(tag);
  return all.empty() ? fallback : all[0];
}

void TiffWriter::set(std::uint32_t tag, std::vector<std::uint32_t> values) {
  const bool is_long =
      std::any_of(values.begin(), values.end(), [](std::uint32_t value) { return value > 0xffff; });
  Entry entry{is_long ? kLong : kShort, static_cast<std::uint32_t>(values.size()), {}};
  for (const std::uint32_t value : values) put(entry.bytes, value, is_long ? 4 : 2);
  entries_[tag] = std::move(entry);
}

void TiffWriter::set_bytes(std::uint32_t tag, std::span<const std::uint8_t> bytes) {
  entries_[tag] = {
      kUndefined, static_cast<std::uint32_t>(bytes.size()), {bytes.begin(), bytes.end()}};
}

std::vector<std::uint8_t> TiffWriter::file(std::span<const std::uint8_t> strip) {
  constexpr std::size_t kHeader = 8;
  const std::size_t directory = (kHeader + strip.size() + 1) / 2 * 2;
  set(kTiffStripOffsets, {kHeader});
  set(kTiffStripBytes, {static_cast<std::uint32_t>(strip.size())});

  std::vector<std::uint8_t> out = {'I', 'I', 42, 0}, outside;
  put(out, directory, 4);
  out.insert(out.end(), strip.begin(), strip.end());
  out.resize(directory);
  const std::size_t outside_at = directory + 2 + entries_.size() * 12 + 4;
  put(out, entries_.size(), 2);
  for (const auto& [tag, entry] : entries_) {
    put(out, tag, 2);
    put(out, entry.type, 2);
    put(out, entry.count, 4);
    if (entry.bytes.size() <= 4) {
      out.insert(out.end(), entry.bytes.begin(), entry.bytes.end());
      out.resize(out.size() + 4 - entry.bytes.size());
    } else {
      put(out, outside_at + outside.size(), 4);
      outside.insert(outside.end(), entry.bytes.begin(), entry.bytes.end());
      outside.resize((outside.size() + 1) / 2 * 2);
    }
  }
  put(out, 0, 4);
  out.insert(out.end(), outside.begin(), outside.end());
  return out;
}

}  // namespace tessera::vision
