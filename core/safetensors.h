#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace tessera::safetensors {

/// What the header of a safetensors file says about one tensor.
struct Entry {
  std::string name;
  std::string dtype;          // as the file spells it
  std::optional<DType> type;  // none: a type that Tensor doesn't have
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, end = 0;  // bytes of the file

  std::int64_t numel() const;
};

constexpr std::size_t kMaxHeaderBytes = 100'000'000;

/// Checks the header of `file` (the whole file) and returns its tensors in the order of their
/// bytes: every byte after the header belongs to exactly one tensor, and every tensor has as many
/// as its type and shape need. Throws FormatError.
std::vector<Entry> parse_header(std::span<const std::byte> file, const std::string& origin);

}  // namespace tessera::safetensors
