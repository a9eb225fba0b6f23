// Event files, byte by byte as TensorBoard's own reader takes them apart.
#include "train/event_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "temporary_folder.h"

namespace tessera::train {
namespace {

TEST(EventFile, Checksum) {
  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, RecordsHoldTheNumbers) {
  const testing::TemporaryFolder temporary;
  const std::filesystem::path& folder = temporary.path;
  const EventFile file(folder, 7), other(folder, 1);
  EXPECT_NE(file.path(), other.path());
  file.append(300, {{"train/loss", 2.5}, {"evaluation", -1}});
  std::ifstream in(file.path(), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::string> events;
  const auto number = [&](std::size_t at, auto value) {
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  };
  const auto unmasked = [](std::uint32_t m) {
    m -= 0xA282EAD8u;
    return m >> 17 | m << 15;
  };
  for (std::size_t at = 0; at < bytes.size();) {
    const auto size = static_cast<std::size_t>(number(at, std::uint64_t{}));
    ASSERT_LE(at + 16 + size, bytes.size());
    EXPECT_EQ(unmasked(number(at + 8, std::uint32_t{})), crc32c(bytes.substr(at, 8)));
    events.push_back(bytes.substr(at + 12, size));
    EXPECT_EQ(unmasked(number(at + 12 + size, std::uint32_t{})), crc32c(events.back()));
    at += 16 + size;
  }
  ASSERT_EQ(events.size(), 3u);
  const auto after_time = [&](std::size_t i) { return events[i].substr(9); };
  EXPECT_EQ(after_time(0), std::string("\x10\0\x1a\x0d", 4) + "brain.Event:2");
  EXPECT_EQ(after_time(1), std::string("\x10\x07\x3a\x02\x08\x01", 6));
  std::string expected = std::string("\x10\xac\x02\x2a\x26", 5);
  expected += std::string("\x0a\x11\x0a\x0atrain/loss\x15\0\0\x20\x40", 19);
  expected += std::string(
      "\x0a\x11\x0a\x0a"
      "evaluation\x15\0\0\x80\xbf",
      19);
  EXPECT_EQ(after_time(2), expected);
  std::filesystem::remove_all(folder);
  EXPECT_THROW(file.append(1, {}), IoError);
}

}  // namespace
}  // namespace tessera::train
