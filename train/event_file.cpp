#include "train/event_file.h"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace tessera::train {
namespace {

template <class T>
void append_bytes(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

// --- protocol buffers ---

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

void append_key(std::string& out, unsigned field, Wire wire) {
  append_varint(out, field << 3 | static_cast<unsigned>(wire));
}

void append_message(std::string& out, unsigned field, std::string_view message) {
  append_key(out, field, Wire::bytes);
  append_varint(out, message.size());
  out += message;
}

/// Event { wall_time = 1; step = 2; file_version = 3; summary = 5; session_log = 7 }
std::string event_at(std::int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  append_key(event, 1, Wire::fixed64);
  append_bytes(event, now.count());
  append_key(event, 2, Wire::varint);
  append_varint(event, static_cast<std::uint64_t>(step));
  return event;
}

/// Summary.Value { tag = 1; simple_value = 2 }
std::string summary_value(const std::string& tag, double number) {
  std::string value;
  append_message(value, 1, tag);
  append_key(value, 2, Wire::fixed32);
  append_bytes(value, static_cast<float>(number));
  return value;
}

/// So that a checksum of data with checksums in it is not 0.
std::uint32_t masked(std::uint32_t crc) { return (crc >> 15 | crc << 17) + 0xA282EAD8u; }

std::filesystem::path free_name(const std::filesystem::path& folder) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  for (int i = 0;; ++i) {
    const auto path =
        folder / concat("events.out.tfevents.", seconds, ".tessera.", ::getpid(), ".", i);
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return path;
  }
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = (c & 1) ? c >> 1 ^ 0x82F63B78u : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char b : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(b)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const std::filesystem::path& folder, std::int64_t first_step)
    : path_(free_name(folder)) {
  std::string version = event_at(0);
  append_message(version, 3, "brain.Event:2");
  write(version);
  std::string start = event_at(first_step), log;
  append_key(log, 1, Wire::varint);
  append_varint(log, 1);  // SessionLog.START
  append_message(start, 7, log);
  write(start);
}

void EventFile::append(std::int64_t step, const Scalars& scalars) const {
  std::string summary, event = event_at(step);
  for (const auto& [tag, number] : scalars) append_message(summary, 1, summary_value(tag, number));
  append_message(event, 5, summary);
  write(event);
}

void EventFile::write(std::string_view event) const {
  std::string record;
  append_bytes(record, static_cast<std::uint64_t>(event.size()));
  append_bytes(record, masked(crc32c(record)));
  record += event;
  append_bytes(record, masked(crc32c(event)));
  std::ofstream out(path_, std::ios::binary | std::ios::app);
  out << record << std::flush;
  if (!out) throw IoError(concat(path_.string(), ": can't be written"));
}

}  // namespace tessera::train
