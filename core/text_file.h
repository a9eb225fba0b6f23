#pragma once
#include <filesystem>
#include <string>

namespace tessera {

/// All bytes of a file. Throws IoError.
std::string read_text_file(const std::filesystem::path& file);

}  // namespace tessera
