#include <array>
#include <fstream>
#include <utility>

#include "core/error.h"
#include "text/tokenizer_impl.h"
#include "text/tokenizer_json.h"

namespace tessera::text {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxFile = std::uintmax_t{256} << 20;
constexpr std::int64_t kMaxContent = 16384;
constexpr std::array<const char*, 7> kRoles = {"bos_token", "eos_token", "unk_token", "sep_token",
                                               "pad_token", "cls_token", "mask_token"};

std::string read_text(const fs::path& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  if (error) throw IoError(concat(file.string(), ": can't be read: ", error.message()));
  if (size > kMaxFile)
    throw FormatError(concat(file.string(), ": ", size, " bytes; at most ", kMaxFile, " are read"));
  std::ifstream in(file, std::ios::binary);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(size)))
    throw IoError(concat(file.string(), ": can't be read"));
  return text;
}

Vocabulary make_vocabulary(const std::vector<std::pair<std::string, std::uint32_t>>& tokens) {
  std::size_t bytes = 0;
  for (const auto& [token, id] : tokens) bytes += token.size();
  Vocabulary vocabulary;
  vocabulary.reserve(tokens.size(), bytes);
  for (const auto& [token, id] : tokens) vocabulary.add(token, id);
  return vocabulary;
}

AddedToken added_token(const JsonView& json) {
  AddedToken token;
  token.content = json.string("content");
  if (token.content.size() > kMaxContent)
    throw FormatError(concat(json.where(), ": a token of ", token.content.size(),
                             " bytes; at most ", kMaxContent, " are read"));
  token.special = json.boolean("special", false);
  token.single_word = json.boolean("single_word", false);
  token.lstrip = json.boolean("lstrip", false);
  token.rstrip = json.boolean("rstrip", false);
  token.normalized = json.boolean("normalized", !token.special);
  return token;
}

BpeOptions bpe_options(const JsonView& model) {
  BpeOptions options;
  options.unk_token = model.optional_string("unk_token");
  options.prefix = model.optional_string("continuing_subword_prefix").value_or("");
  options.suffix = model.optional_string("end_of_word_suffix").value_or("");
  options.fuse_unk = model.boolean("fuse_unk", false);
  options.byte_fallback = model.boolean("byte_fallback", false);
  options.ignore_merges = model.boolean("ignore_merges", false);
  return options;
}

Bpe bpe_model(TokenizerDocument& document, const JsonView& root) {
  const JsonView model = root.at("model");
  const std::string type =
      model.optional_string("type").value_or(document.has_merges ? "BPE" : "without a type");
  if (type != "BPE")
    throw UnsupportedError(
        concat(model.where(), ": model type '", type, "' is not supported; known is BPE"));
  if (!document.has_vocab || !document.has_merges)
    throw FormatError(concat(model.where(), ": '", document.has_vocab ? "merges" : "vocab",
                             "' is missing or of another type"));
  Bpe bpe(make_vocabulary(document.vocab), document.merges, bpe_options(model), model.where());
  document.vocab = {};
  document.merges = {};
  return bpe;
}

}  // namespace

/// Puts the parts of a tokenizer together.
class TokenizerLoader {
 public:
  using Impl = Tokenizer::Impl;

  static std::shared_ptr<Impl> from_json(std::string_view text, const std::string& where) {
    TokenizerDocument document = parse_tokenizer_json(text, where);
    const JsonView root(document.rest, where);
    if (const std::string version = root.optional_string("version").value_or("1.0");
        version != "1.0")
      throw UnsupportedError(
          concat(where, ": version '", version, "' is not supported; known is 1.0"));
    auto impl = std::make_shared<Impl>(bpe_model(document, root));
    if (root.has("normalizer")) impl->normalizer = Normalizer(root.at("normalizer"));
    if (root.has("pre_tokenizer")) impl->pre_tokenizer = PreTokenizer(root.at("pre_tokenizer"));
    if (root.has("post_processor")) impl->post_processor = PostProcessor(root.at("post_processor"));
    if (root.has("decoder")) impl->decoder = Decoder(root.at("decoder"));
    if (root.has("added_tokens")) {
      std::vector<AddedToken> tokens;
      for (const JsonView& token : root.elements("added_tokens"))
        tokens.push_back(added_token(token));
      impl->added.add(tokens, impl->bpe, impl->normalizer);
    }
    return impl;
  }

  static std::shared_ptr<Impl> from_vocab(const fs::path& folder) {
    const fs::path vocab_file = folder / "vocab.json", merges_file = folder / "merges.txt";
    Vocabulary vocabulary =
        make_vocabulary(parse_vocab_json(read_text(vocab_file), vocab_file.string()));
    const std::string lines = read_text(merges_file), merges_name = merges_file.string();
    Bpe::Merges merges;
    std::size_t number = 0;
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = std::min(lines.find('\n', at), lines.size());
      std::string_view line = std::string_view(lines).substr(at, end - at);
      if (line.ends_with('\r')) line.remove_suffix(1);
      ++number;
      if (!line.empty() && !line.starts_with("#version"))
        merges.push_back(parse_merge(line, merges_name, "line", number));
      at = end + 1;
    }
    auto impl =
        std::make_shared<Impl>(Bpe(std::move(vocabulary), merges, {}, merges_file.string()));
    impl->pre_tokenizer = PreTokenizer::gpt2(false);
    impl->decoder = Decoder::byte_level();
    return impl;
  }

  /// The tokens that tokenizer_config.json and special_tokens_map.json add, and the roles they
  /// name.
  static void read_configs(const fs::path& folder, bool gpt2, Impl& impl) {
    std::vector<AddedToken> tokens;
    std::map<std::string, AddedToken> roles;
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
      const fs::path file = folder / name;
      if (!fs::exists(file)) continue;
      const nlohmann::json document = parse_json(read_text(file), file.string());
      const JsonView config(document, file.string());
      if (config.has("added_tokens_decoder"))
        append_in_order(config.at("added_tokens_decoder"), tokens);
      if (gpt2 && config.boolean("add_prefix_space", false))
        impl.pre_tokenizer = PreTokenizer::gpt2(true);
      for (const char* role : kRoles)
        if (config.has(role)) roles.emplace(role, role_token(config.at(role)));
    }
    if (gpt2 && impl.bpe.vocabulary().find("<|endoftext|>"))
      for (const char* role : {"bos_token", "eos_token", "unk_token"})
        roles.emplace(role, AddedToken{"<|endoftext|>", false, false, false, false, true});
    const auto is_new = [&](const AddedToken& token) { return !impl.added.id_of(token.content); };
    std::erase_if(tokens, [&](const AddedToken& token) { return !is_new(token); });
    impl.added.add(tokens, impl.bpe, impl.normalizer);
    for (const char* role : kRoles) {
      const auto token = roles.find(role);
      if (token == roles.end()) continue;
      if (is_new(token->second)) impl.added.add({token->second}, impl.bpe, impl.normalizer);
      if (const auto id = impl.added.id_of(token->second.content))
        impl.roles[role] = static_cast<std::int32_t>(*id);
    }
  }

 private:
  static AddedToken role_token(const JsonView& json) {
    AddedToken token;
    if (json.is_object()) {
      token = added_token(json);
    } else {
      token.content = json.as_string();
    }
    token.normalized = json.is_object() && json.boolean("normalized", false);
    token.special = true;
    return token;
  }

  /// {"50257": {content, ...}, ...}, by id.
  static void append_in_order(const JsonView& list, std::vector<AddedToken>& tokens) {
    std::map<std::pair<std::size_t, std::string>, AddedToken> by_id;
    for (const auto& [id, token] : list.items())
      by_id.emplace(std::pair(id.size(), id), added_token(token));
    for (auto& [id, token] : by_id) tokens.push_back(std::move(token));
  }
};

Tokenizer Tokenizer::parse(std::string_view json, const std::string& origin) {
  Tokenizer out;
  out.impl_ = TokenizerLoader::from_json(json, origin);
  return out;
}

Tokenizer Tokenizer::open(const fs::path& path) {
  if (!fs::is_directory(path)) return parse(read_text(path), path.string());
  Tokenizer out;
  const bool gpt2 = !fs::exists(path / "tokenizer.json");
  if (gpt2 && (!fs::exists(path / "vocab.json") || !fs::exists(path / "merges.txt")))
    throw IoError(concat(path.string(), ": no tokenizer.json, and no vocab.json with merges.txt"));
  const fs::path file = path / "tokenizer.json";
  const auto impl = gpt2 ? TokenizerLoader::from_vocab(path)
                         : TokenizerLoader::from_json(read_text(file), file.string());
  TokenizerLoader::read_configs(path, gpt2, *impl);
  out.impl_ = impl;
  return out;
}

}  // namespace tessera::text
