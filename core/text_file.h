#pragma once
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

namespace tessera {

/// All bytes of a file. Throws IoError.
std::string read_text_file(const std::filesystem::path& file);

/// Whether a file's name ends with one of these (".jpg"), in letters of any case.
bool has_ending(const std::filesystem::path& file, std::initializer_list<std::string_view> endings);

}  // namespace tessera
