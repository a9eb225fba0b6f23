#include "fusion/description.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "core/error.h"

namespace tessera::fusion {
namespace {

namespace fs = std::filesystem;

/// Whether this file holds weights, in whatever format: what is replaced.
bool is_weights(const fs::path& file) {
  static constexpr std::array<std::string_view, 9> kEndings = {
      ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".index.json"};
  const std::string name = file.filename().string();
  return std::ranges::any_of(kEndings,
                             [&](std::string_view ending) { return name.ends_with(ending); });
}

/// Whether this file tells how the checkpoint was trained: it belongs to that run alone.
bool is_log(const fs::path& file) {
  const std::string name = file.filename().string();
  return name == "log.jsonl" || name == "trainer_state.json" || name == "plot.png" ||
         name.starts_with("events.out.tfevents.");
}

}  // namespace

void demand_new_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder, error) &&
      (!fs::is_directory(folder, error) || !fs::is_empty(folder, error)))
    throw ArgumentError(concat(folder.string(), ": is there already; name a new folder"));
}

void make_new_folder(const fs::path& folder) {
  demand_new_folder(folder);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError(concat(folder.string(), ": can't be made: ", error.message()));
}

void copy_description(const fs::path& from, const fs::path& to) {
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename();
    if (!entry.is_regular_file() || is_weights(name) || is_log(name) || name == "config.json")
      continue;
    std::error_code error;
    fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing, error);
    if (error) throw IoError(concat((to / name).string(), ": can't be written: ", error.message()));
  }
}

}  // namespace tessera::fusion
