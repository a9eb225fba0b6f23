#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "core/mapped_file.h"
#include "core/safetensors.h"

namespace tessera {

struct OpenFile {
  std::filesystem::path path;
  std::shared_ptr<const MappedFile> mapped;
  std::vector<safetensors::Entry> entries;
};

/// Finds and opens the safetensors files of a checkpoint: of a directory, an index file
/// ("model.safetensors.index.json") or one file. Headers and index are checked.
std::vector<OpenFile> open_checkpoint_files(const std::filesystem::path& path);

}  // namespace tessera
