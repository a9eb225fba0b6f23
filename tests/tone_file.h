#pragma once
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>

namespace tessera::testing {

/// Writes 0.75 s of a tone, as 16-bit wav.
inline void write_tone(const std::filesystem::path& file, int hertz) {
  std::ofstream out(file, std::ios::binary);
  const auto put = [&](std::uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.put(static_cast<char>(value >> (8 * i)));
  };
  constexpr std::uint32_t kBytes = 2 * 12000;
  out << "RIFF";
  put(36 + kBytes, 4);
  out << "WAVEfmt ";
  put(16, 4), put(1, 2), put(1, 2), put(16000, 4), put(32000, 4), put(2, 2), put(16, 2);
  out << "data";
  put(kBytes, 4);
  for (std::uint32_t i = 0; i < kBytes / 2; ++i)
    put(static_cast<std::uint32_t>(8000 * std::sin(i * hertz * 6.2831853 / 16000)) & 0xFFFF, 2);
}

}  // namespace tessera::testing
