#include "text/token_shards.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "core/output_file.h"
#include "core/weights.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

std::uint64_t hash_of(std::string_view text, std::uint64_t h = 0xCBF29CE484222325u) {  // FNV-1a
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}

/// What a tokenizer does to a text that has all sorts of things in it stands for the tokenizer.
std::uint64_t hash_of(const Tokenizer& tokenizer) {
  std::uint64_t h = hash_of(concat(tokenizer.vocab_size()));
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id)
    h = hash_of(tokenizer.token(static_cast<std::int32_t>(id)) + "\n", h);
  for (const std::int32_t id :
       tokenizer.encode("A text, 123 times  longer\tthan naïve 日本 ones.\n"))
    h = hash_of(concat(id, " "), h);
  return hash_of(concat(tokenizer.special("eos_token").value_or(-1)), h);
}

std::string shard_name(const fs::path& file, std::uint64_t tokenizer) {
  std::error_code ignored;
  const auto time = fs::last_write_time(file, ignored).time_since_epoch().count();
  const std::string key =
      concat(fs::absolute(file, ignored).string(), "|", fs::file_size(file, ignored), "|", time);
  char name[40];
  std::snprintf(name, sizeof name, "%016llx.safetensors",
                static_cast<unsigned long long>(hash_of(key, tokenizer)));
  return name;
}

std::string read_text(const fs::path& file) {
  std::error_code ignored;
  std::ifstream in(file, std::ios::binary);
  if (!in || fs::is_directory(file, ignored))
    throw IoError(concat(file.string(), ": can't be read"));
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) throw IoError(concat(file.string(), ": can't be read to its end"));
  if (text.empty()) throw FormatError(concat(file.string(), ": is empty"));
  return text;
}

Tensor encode(const fs::path& file, const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids = tokenizer.encode(read_text(file));
  if (const auto end = tokenizer.special("eos_token")) ids.push_back(*end);
  Tensor tokens = Tensor::empty({std::ssize(ids)}, DType::i32);
  std::memcpy(tokens.raw(), ids.data(), tokens.nbytes());
  return tokens;
}

Tensor shard_of(const fs::path& file, const Tokenizer& tokenizer, const fs::path& shard) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) throw IoError(concat(file.string(), ": can't be read"));
  if (shard.empty()) return encode(file, tokenizer);
  if (!fs::exists(shard, ignored)) {
    make_folders(shard.parent_path());
    save_safetensors(shard, {{"tokens", encode(file, tokenizer)}});
  }
  const Weights kept = Weights::open(shard);
  const Tensor tokens = kept.get("tokens");
  if (tokens.rank() != 1 || tokens.dtype() != DType::i32)
    throw FormatError(
        concat(kept.where("tokens"), ": expected I32 in one dimension; remove the file"));
  return tokens;
}

}  // namespace

TokenShards::TokenShards(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                         const fs::path& folder, const std::function<bool()>& stop) {
  const std::uint64_t key = folder.empty() ? 0 : hash_of(tokenizer);
  for (const fs::path& file : files) {
    if (stop && stop()) throw Error("stopped while texts were encoded");
    parts_.push_back(
        shard_of(file, tokenizer, folder.empty() ? fs::path() : folder / shard_name(file, key)));
    ends_.push_back(size() + parts_.back().numel());
  }
}

std::vector<std::int32_t> TokenShards::read(std::int64_t begin, std::int64_t count) const {
  if (begin < 0 || count < 0 || begin > size() - count)
    throw ArgumentError(concat("tokens ", begin, " to ", begin + count, " of ", size()));
  std::vector<std::int32_t> out;
  out.reserve(static_cast<std::size_t>(count));
  auto part = static_cast<std::size_t>(std::ranges::upper_bound(ends_, begin) - ends_.begin());
  for (; count > 0; ++part) {
    const std::int64_t first = part > 0 ? ends_[part - 1] : 0;
    const std::int64_t take = std::min(count, ends_[part] - begin);
    const auto* from = parts_[part].data<std::int32_t>() + (begin - first);
    out.insert(out.end(), from, from + take);
    begin += take;
    count -= take;
  }
  return out;
}

}  // namespace tessera::text
