#pragma once
#include <filesystem>
#include <string>

#include "cli/finetune.h"

namespace tessera::cli {

struct RetrievalOptions : FinetuneOptions {
  std::string image_tower, tokenizer;
  std::int64_t text_width = 256, text_layers = 4, text_heads = 4, text_context = 64, dim = 256;
};

/// Writes a dual encoder to a folder: the image tower as it is, all else with first numbers. Throws
/// UnsupportedError for towers and tokenizers that don't fit, ArgumentError.
void write_new_dual(const RetrievalOptions& options, const std::filesystem::path& folder);

}  // namespace tessera::cli
