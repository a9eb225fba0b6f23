#pragma once
#include <filesystem>

namespace tessera::fusion {

/// Throws ArgumentError where something is there already.
void demand_new_folder(const std::filesystem::path& folder);
/// A folder for a checkpoint to be written to. Throws ArgumentError where something is there
/// already, IoError.
void make_new_folder(const std::filesystem::path& folder);

/// Copies what belongs to a checkpoint besides its weights and config.json: tokenizer, processors,
/// generation options, model card. Throws IoError.
void copy_description(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace tessera::fusion
