#pragma once
#include <filesystem>

namespace tessera::fusion {

/// Copies what belongs to a checkpoint besides its weights and config.json: tokenizer, processors,
/// generation options, model card. Throws IoError.
void copy_description(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace tessera::fusion
