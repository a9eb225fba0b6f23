#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "core/output_file.h"

namespace tessera::train {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "checkpoint-";

/// Complete checkpoints by step.
std::map<std::int64_t, fs::path> checkpoints(const fs::path& run) {
  std::map<std::int64_t, fs::path> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(run, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    const std::string_view digits = std::string_view(name).substr(kPrefix.size());
    std::int64_t step = 0;
    const auto [end, wrong] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
    if (wrong == std::errc() && end == digits.data() + digits.size()) found[step] = entry.path();
  }
  return found;
}

}  // namespace

std::optional<fs::path> newest_checkpoint(const fs::path& run) {
  const auto all = checkpoints(run);
  if (all.empty()) return std::nullopt;
  return all.rbegin()->second;
}

void save_checkpoint(const fs::path& run, const std::string& weights_file,
                     const Parameters& parameters, const Optimizer& optimizer,
                     const TrainerState& state, const SaveDescription& describe,
                     std::int64_t kept) {
  const fs::path folder = run / concat(kPrefix, state.step);
  fs::path partial = folder;
  partial += ".partial";
  std::error_code error;
  fs::remove_all(partial, error);
  try {
    save_model(partial / weights_file, parameters, describe);
    save_safetensors(partial / "optimizer.safetensors", optimizer.state());
    const nlohmann::ordered_json json = {{"global_step", state.step}, {"seed", state.seed}};
    write_file(partial / "trainer_state.json", json.dump(2) + "\n");
  } catch (...) {
    fs::remove_all(partial, error);
    throw;
  }
  fs::remove_all(folder, error);
  fs::rename(partial, folder, error);
  if (error) throw IoError(concat(folder.string(), ": can't be put in place: ", error.message()));
  sync_directory(run);
  auto all = checkpoints(run);
  while (static_cast<std::int64_t>(all.size()) > std::max<std::int64_t>(1, kept)) {
    fs::remove_all(all.begin()->second, error);
    all.erase(all.begin());
  }
}

TrainerState load_checkpoint(const fs::path& checkpoint, const std::string& weights_file,
                             const Parameters& parameters, Optimizer& optimizer) {
  const Config state = Config::read(checkpoint / "trainer_state.json");
  const Weights weights = Weights::open(checkpoint / weights_file);
  for (const NamedTensor& p : parameters) {
    const Tensor saved = weights.get_f32(p.name, p.tensor.shape());
    Tensor to = p.tensor;
    std::memcpy(to.raw(), saved.raw(), saved.nbytes());
  }
  optimizer.restore(Weights::open(checkpoint / "optimizer.safetensors"));
  return {state.integer("global_step"), static_cast<std::uint64_t>(state.integer("seed", 0))};
}

void save_model(const fs::path& file, const Parameters& parameters,
                const SaveDescription& describe) {
  make_folders(file.parent_path());
  if (describe) describe(file.parent_path());
  save_safetensors(file, parameters);
}

}  // namespace tessera::train
