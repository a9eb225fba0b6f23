#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/weights.h"

namespace {

/// A file of this process alone, removed at its end.
class ScratchFile {
 public:
  explicit ScratchFile(const char* name)
      : path_(std::filesystem::temp_directory_path() /
              (std::string(name) + std::to_string(getpid()) + ".safetensors")) {}
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Reads every number of every tensor that can be had.
std::vector<tessera::NamedTensor> read_all(const tessera::Weights& weights) {
  std::vector<tessera::NamedTensor> tensors;
  for (const std::string& name : weights.names()) {
    if (!weights.has(name)) __builtin_trap();
    try {
      const tessera::Tensor tensor = weights.get(name);
      if (weights.get_f32(name, tensor.shape()).to_vector().size() !=
          static_cast<std::size_t>(tensor.numel()))
        __builtin_trap();
      tensors.push_back({name, tensor.clone()});
    } catch (const tessera::Error&) {
    }
  }
  weights.release_pages();
  weights.ignore("");
  if (!weights.leftovers().empty() || weights.parameters() < 0 || weights.bytes() < 0)
    __builtin_trap();
  return tensors;
}

void check_same(const tessera::Weights& weights, const std::vector<tessera::NamedTensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const tessera::Tensor again = weights.get(name, tensor.shape());
    if (again.dtype() != tensor.dtype()) __builtin_trap();
    if (tensor.nbytes() > 0 && std::memcmp(again.raw(), tensor.raw(), tensor.nbytes()) != 0)
      __builtin_trap();
  }
}

}  // namespace

// Any bytes: tensors or an Error. What could be read comes back the same after it was saved.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ScratchFile file("fuzz-"), copy("fuzz-copy-");
  std::ofstream(file.path(), std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  std::vector<tessera::NamedTensor> tensors;
  try {
    tensors = read_all(tessera::Weights::open(file.path()));
  } catch (const tessera::Error&) {
    return 0;
  }
  tessera::save_safetensors(copy.path(), tensors);
  check_same(tessera::Weights::open(copy.path()), tensors);
  return 0;
}
