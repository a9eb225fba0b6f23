#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/config.h"
#include "core/error.h"

namespace {

/// Asks a place all that can be asked; errors are answers, too.
void visit(const tessera::Config& place) {
  const auto ask = [](auto question) {
    try {
      question();
    } catch (const tessera::Error&) {
    }
  };
  ask([&] { place.as_integer(); });
  ask([&] { place.as_number(); });
  ask([&] { place.as_string(); });
  if (!place.is_object() && !place.is_array()) return;
  for (std::size_t i = 0; i < place.size(); ++i) visit(place[i]);
  if (!place.is_object()) return;
  for (const std::string& key : place.keys()) {
    ask([&] { place.bounded(key, 1, 1, 1000); });
    ask([&] { place.integers(key); });
    ask([&] { place.strings(key); });
    ask([&] { place.child(key); });
    ask([&] { place.boolean(key, true); });
  }
}

}  // namespace

// Any bytes: a document or an Error. What is written out again reads the same.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::string written;
  try {
    const tessera::Config config = tessera::Config::parse(text, "fuzz");
    visit(config);
    written = config.dump();
  } catch (const tessera::Error&) {
    return 0;
  }
  if (tessera::Config::parse(written, "dump").dump() != written) __builtin_trap();
  return 0;
}
