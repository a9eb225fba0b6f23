#pragma once
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace tessera {

/// All bytes of a file. Throws IoError.
std::string read_text_file(const std::filesystem::path& file);

/// Whether a file's name ends with one of these (".jpg"), in letters of any case.
bool has_ending(const std::filesystem::path& file, std::initializer_list<std::string_view> endings);

/// The files in a folder and all that are in it which are `wanted`, sorted; what may not be entered
/// is left out.
std::vector<std::filesystem::path> files_below(
    const std::filesystem::path& folder,
    const std::function<bool(const std::filesystem::path&)>& wanted, std::error_code& error);

}  // namespace tessera
