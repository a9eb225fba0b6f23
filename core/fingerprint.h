#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

// Names for what is computed once from a file and kept.
namespace tessera {

/// FNV-1a of these bytes, going on from `hash`.
std::uint64_t fnv1a(std::string_view bytes, std::uint64_t hash = 0xCBF29CE484222325u);
/// Path, size and time of a file as a text: another one when the file changes.
std::string file_state(const std::filesystem::path& file);
/// "<16 hexadecimal digits>.safetensors"
std::string kept_name(std::uint64_t hash);

}  // namespace tessera
