#include "core/weights_files.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "core/config.h"
#include "core/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

OpenFile open_file(const fs::path& path) {
  OpenFile file{path, std::make_shared<MappedFile>(path), {}};
  file.entries = safetensors::parse_header(file.mapped->bytes(), path.string());
  return file;
}

/// A shard must be a file beside the index: no way out of the directory.
void check_shard_name(const std::string& shard, const std::string& where) {
  constexpr std::string_view kForbidden("/\\\0", 3);
  if (shard.empty() || shard == "." || shard == ".." ||
      shard.find_first_of(kForbidden) != std::string::npos) {
    throw FormatError(
        concat(where, ": expected the name of a file beside the index, found \"", shard, "\""));
  }
}

void check_holds(const OpenFile& file, const std::set<std::string>& wanted, const fs::path& index) {
  std::set<std::string_view> found;
  for (const safetensors::Entry& entry : file.entries) found.insert(entry.name);
  for (const std::string& name : wanted) {
    if (found.count(name) == 0) {
      throw FormatError(concat(index.string(), ": tensor \"", name, "\" should be in ",
                               file.path.filename().string(), ", which does not have it"));
    }
  }
}

std::vector<OpenFile> open_index(const fs::path& index) {
  const Config map = Config::read(index).at("weight_map");
  std::map<std::string, std::set<std::string>> shards;
  const std::vector<std::string> names = map.keys();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string shard = map[i].as_string();
    check_shard_name(shard, map[i].where());
    shards[shard].insert(names[i]);
  }
  std::vector<OpenFile> files;
  for (const auto& [shard, wanted] : shards) {
    const fs::path path = index.parent_path() / shard;
    if (std::error_code error; !fs::exists(path, error)) {
      throw FormatError(concat(index.string(), ": the file ", shard, " with ", wanted.size(),
                               " tensors is missing beside it"));
    }
    files.push_back(open_file(path));
    check_holds(files.back(), wanted, index);
  }
  return files;
}

[[noreturn]] void refuse_pickle(const fs::path& file) {
  throw UnsupportedError(
      concat(file.string(),
             ": weights in this format are not supported, only safetensors; convert "
             "them with transformers: "
             "AutoModel.from_pretrained(...).save_pretrained(..., "
             "safe_serialization=True)"));
}

bool is_foreign_format(const fs::path& file) {
  const std::string ending = file.extension().string();
  return ending == ".bin" || ending == ".pt" || ending == ".pth" || ending == ".ckpt" ||
         ending == ".h5" || ending == ".msgpack";
}

std::vector<OpenFile> open_directory(const fs::path& directory) {
  if (const fs::path one = directory / "model.safetensors"; fs::exists(one))
    return {open_file(one)};
  if (const fs::path index = directory / "model.safetensors.index.json"; fs::exists(index))
    return open_index(index);
  std::vector<fs::path> candidates, foreign;
  for (const auto& item : fs::directory_iterator(directory)) {
    if (item.path().extension() == ".safetensors") candidates.push_back(item.path());
    if (is_foreign_format(item.path())) foreign.push_back(item.path());
  }
  if (candidates.size() == 1) return {open_file(candidates[0])};
  if (candidates.size() > 1) {
    throw FormatError(concat(directory.string(), ": holds ", candidates.size(),
                             " .safetensors files, but neither model.safetensors nor "
                             "model.safetensors.index.json; name the file to open"));
  }
  if (!foreign.empty()) refuse_pickle(*std::min_element(foreign.begin(), foreign.end()));
  throw IoError(concat(directory.string(),
                       ": has no weights: expected model.safetensors, "
                       "model.safetensors.index.json or another .safetensors file"));
}

}  // namespace

std::vector<OpenFile> open_checkpoint_files(const fs::path& path) {
  try {
    if (!fs::exists(path)) {
      throw IoError(concat(path.string(),
                           ": does not exist; expected a checkpoint directory or a "
                           ".safetensors file"));
    }
    if (fs::is_directory(path)) return open_directory(path);
  } catch (const fs::filesystem_error& error) {
    throw IoError(concat(path.string(), ": can't be read: ", error.code().message()));
  }
  if (path.extension() == ".json") return open_index(path);
  if (is_foreign_format(path)) refuse_pickle(path);
  return {open_file(path)};
}

}  // namespace tessera
