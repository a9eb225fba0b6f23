#include "text/token_shards.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/fingerprint.h"
#include "core/output_file.h"
#include "core/text_file.h"
#include "core/weights.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

/// What a tokenizer does to a text that has all sorts of things in it stands for the tokenizer.
std::uint64_t fingerprint(const Tokenizer& tokenizer) {
  std::uint64_t h = fnv1a(concat(tokenizer.vocab_size()));
  for (std::int64_t id = 0; id < tokenizer.vocab_size(); ++id)
    h = fnv1a(tokenizer.token(static_cast<std::int32_t>(id)) + "\n", h);
  for (const std::int32_t id :
       tokenizer.encode("A text, 123 times  longer\tthan naïve 日本 ones.\n"))
    h = fnv1a(concat(id, " "), h);
  return fnv1a(concat(tokenizer.special("eos_token").value_or(-1)), h);
}

Tensor encode(const fs::path& file, const Tokenizer& tokenizer) {
  const std::string text = read_text_file(file);
  if (text.empty()) throw FormatError(concat(file.string(), ": is empty"));
  std::vector<std::int32_t> ids = tokenizer.encode(text);
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
  const std::uint64_t key = folder.empty() ? 0 : fingerprint(tokenizer);
  for (const fs::path& file : files) {
    if (stop && stop()) throw Error("stopped while texts were encoded");
    const fs::path shard =
        folder.empty() ? fs::path() : folder / kept_name(fnv1a(file_state(file), key));
    parts_.push_back(shard_of(file, tokenizer, shard));
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
