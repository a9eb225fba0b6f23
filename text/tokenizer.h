#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

struct EncodeOptions {
  bool add_special_tokens = false;  ///< run the post-processor's template (BOS, EOS, ...)
  bool parse_special =
      false;  ///< special tokens written out in the text count as such; off for user text
};

struct DecodeOptions {
  bool skip_special_tokens = true;
  bool clean_up_spaces = false;  ///< clean_up_tokenization_spaces of tokenizer_config.json
};

/// Byte-level (and byte-fallback) BPE exactly as HF `tokenizers` reads it from tokenizer.json, or
/// from vocab.json and merges.txt (GPT-2's rules). Const and shared: any number of threads may use
/// one.
class Tokenizer {
 public:
  /// A checkpoint directory (tokenizer.json, else vocab.json + merges.txt; tokenizer_config.json
  /// and special_tokens_map.json if present) or a tokenizer.json. Throws IoError, FormatError,
  /// UnsupportedError.
  static Tokenizer open(const std::filesystem::path& path);
  /// The text of a tokenizer.json; `origin` stands for the file in error messages.
  static Tokenizer parse(std::string_view json, const std::string& origin);

  /// Invalid UTF-8 counts as U+FFFD, one for each maximal ill-formed part (as Python's
  /// errors="replace").
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Ids outside the vocabulary are skipped. Incomplete characters become U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, const DecodeOptions& options = {}) const;

  std::optional<std::int32_t> id_of(
      std::string_view token) const;         ///< by its content, as in the vocabulary
  std::string token(std::int32_t id) const;  ///< "" outside the vocabulary
  bool is_special(std::int32_t id) const;
  std::int64_t vocab_size() const;  ///< largest id + 1, added tokens included
  /// bos_token, eos_token, pad_token, unk_token of the tokenizer's config files.
  std::optional<std::int32_t> special(std::string_view role) const;
  /// All of these, by role, as they are written.
  std::map<std::string, std::string> special_tokens() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
  friend class StreamDecoder;
  friend class TokenizerLoader;
};

/// Turns ids into text one at a time and never emits half a character: what is not yet complete is
/// held back.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, const DecodeOptions& options = {});
  /// The text that became certain with this id (often empty). All calls together and finish() give
  /// decode() of all ids.
  std::string push(std::int32_t id);
  std::string finish();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace tessera::text
