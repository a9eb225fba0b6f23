#include "core/fingerprint.h"

#include <cstdio>
#include <system_error>

#include "core/error.h"

namespace tessera {

std::uint64_t fnv1a(std::string_view bytes, std::uint64_t hash) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return hash;
}

std::string file_state(const std::filesystem::path& file) {
  std::error_code ignored;
  return concat(std::filesystem::absolute(file, ignored).string(), "|",
                std::filesystem::file_size(file, ignored), "|",
                std::filesystem::last_write_time(file, ignored).time_since_epoch().count());
}

std::string kept_name(std::uint64_t hash) {
  char name[40];
  std::snprintf(name, sizeof name, "%016llx.safetensors", static_cast<unsigned long long>(hash));
  return name;
}

}  // namespace tessera
