#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/output_file.h"
#include "core/weights.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// The reference writes wider types first, so that every tensor is aligned; this is its order.
int type_rank(DType type) {
  switch (type) {
    case DType::i64:
      return 0;
    case DType::f32:
      return 1;
    case DType::i32:
      return 2;
    case DType::bf16:
      return 3;
    case DType::f16:
      return 4;
    case DType::i8:
      return 5;
    case DType::u8:
      return 6;
  }
  return 7;
}

std::vector<const NamedTensor*> in_file_order(const fs::path& file,
                                              const std::vector<NamedTensor>& tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) {
    if (!t.tensor || t.name == "__metadata__")
      throw ArgumentError(concat(file.string(), ": \"", t.name, "\" is not a tensor to save"));
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return std::pair(type_rank(a->tensor.dtype()), std::string_view(a->name)) <
           std::pair(type_rank(b->tensor.dtype()), std::string_view(b->name));
  });
  std::vector<std::string_view> names;
  for (const NamedTensor* t : order) names.push_back(t->name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw ArgumentError(concat(file.string(), ": two tensors are named \"", *twice, "\""));
  return order;
}

/// Length and JSON text, padded to 8 bytes. Says "pt" like torch's files, without which
/// transformers does not load them.
std::string header_for(const std::vector<const NamedTensor*>& order) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  std::size_t at = 0;
  for (const NamedTensor* t : order) {
    std::vector<std::int64_t> shape;
    for (int i = 0; i < t->tensor.rank(); ++i) shape.push_back(t->tensor.dim(i));
    const std::size_t end = at + t->tensor.nbytes();
    nlohmann::ordered_json entry;
    entry["dtype"] = name_of(t->tensor.dtype());
    entry["shape"] = shape;
    entry["data_offsets"] = {at, end};
    header.emplace(t->name, std::move(entry));
    at = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  std::string length(8, '\0');
  for (std::size_t i = 0; i < 8; ++i)
    length[i] = static_cast<char>(static_cast<std::uint64_t>(text.size()) >> (8 * i) & 0xff);
  return length + text;
}

}  // namespace

void save_safetensors(const fs::path& file, const std::vector<NamedTensor>& tensors) {
  const std::vector<const NamedTensor*> order = in_file_order(file, tensors);
  std::string header;
  try {
    header = header_for(order);
  } catch (const nlohmann::json::exception&) {
    throw ArgumentError(concat(file.string(), ": the name of a tensor is not UTF-8"));
  }
  OutputFile out(file);
  out.write(header.data(), header.size());
  for (const NamedTensor* t : order) {
    const Tensor tensor = t->tensor.is_contiguous() ? t->tensor : t->tensor.clone();
    out.write(tensor.raw(), tensor.nbytes());
  }
  out.publish();
}

}  // namespace tessera
