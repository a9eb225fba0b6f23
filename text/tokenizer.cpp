#include "text/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer_impl.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

constexpr std::size_t kMaxText = std::size_t{1} << 31;

}  // namespace

std::optional<std::string_view> Tokenizer::Impl::decoder_token(std::int32_t id,
                                                               bool skip_special) const {
  if (id < 0) return std::nullopt;
  const auto key = static_cast<std::uint32_t>(id);
  std::string_view token;
  if (added.find(key)) {
    token = added.decoder_text(key);
  } else if (bpe.vocabulary().has(key)) {
    token = bpe.vocabulary().token(key);
  } else {
    return std::nullopt;
  }
  if (skip_special && added.is_special(std::string(token))) return std::nullopt;
  return token;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text,
                                            const EncodeOptions& options) const {
  const Impl& t = *impl_;
  if (text.size() > kMaxText)
    throw ArgumentError(
        concat("a text of ", text.size(), " bytes; at most ", kMaxText, " are encoded at once"));
  std::string repaired;
  if (valid_utf8_prefix(text) != text.size()) text = repaired = replace_invalid_utf8(text);

  std::vector<std::int32_t> ids;
  const bool raw_bytes = t.pre_tokenizer.byte_level_words();
  WordEncoder words(t.bpe, raw_bytes);
  const auto ordinary = [&](std::string_view part, bool at_start) {
    Pieces pieces{std::string(part), {{0, part.size(), at_start}}};
    t.pre_tokenizer(pieces);
    for (const Pieces::Piece& piece : pieces.pieces) words.encode(pieces.of(piece), ids);
  };
  for (const AddedTokens::Segment& outer : t.added.split(text, false, options.parse_special)) {
    if (outer.id) {
      ids.push_back(static_cast<std::int32_t>(*outer.id));
      continue;
    }
    const std::string normal = t.normalizer(text.substr(outer.begin, outer.end - outer.begin));
    for (const AddedTokens::Segment& inner : t.added.split(normal, true, options.parse_special)) {
      if (inner.id) {
        ids.push_back(static_cast<std::int32_t>(*inner.id));
      } else {
        ordinary(std::string_view(normal).substr(inner.begin, inner.end - inner.begin),
                 outer.begin == 0 && inner.begin == 0);
      }
    }
  }
  return options.add_special_tokens ? t.post_processor(std::move(ids)) : ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids,
                              const DecodeOptions& options) const {
  StreamDecoder stream(*this, options);
  std::string out;
  for (const std::int32_t id : ids) out += stream.push(id);
  return out + stream.finish();
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view token) const {
  auto id = impl_->added.id_of(token);
  if (!id) id = impl_->bpe.vocabulary().find(token);
  if (!id) return std::nullopt;
  return static_cast<std::int32_t>(*id);
}

std::string Tokenizer::token(std::int32_t id) const {
  if (id < 0) return {};
  const auto key = static_cast<std::uint32_t>(id);
  if (const AddedToken* added = impl_->added.find(key)) return added->content;
  return std::string(impl_->bpe.vocabulary().token(key));
}

bool Tokenizer::is_special(std::int32_t id) const {
  const AddedToken* added = id < 0 ? nullptr : impl_->added.find(static_cast<std::uint32_t>(id));
  return added && added->special;
}

std::int64_t Tokenizer::vocab_size() const {
  return std::max(impl_->bpe.vocabulary().end_id(), impl_->added.end_id());
}

std::optional<std::int32_t> Tokenizer::special(std::string_view role) const {
  const auto at = impl_->roles.find(role);
  if (at == impl_->roles.end()) return std::nullopt;
  return at->second;
}

std::map<std::string, std::string> Tokenizer::special_tokens() const {
  std::map<std::string, std::string> tokens;
  for (const auto& [role, id] : impl_->roles) tokens[role] = token(id);
  return tokens;
}

struct StreamDecoder::Impl {
  Tokenizer tokenizer;
  bool skip_special;
  Decoder::Stream stream;
};

StreamDecoder::StreamDecoder(Tokenizer tokenizer, const DecodeOptions& options)
    : impl_(std::make_shared<Impl>(
          Impl{tokenizer, options.skip_special_tokens,
               Decoder::Stream(tokenizer.impl_->decoder, options.clean_up_spaces)})) {}

std::string StreamDecoder::push(std::int32_t id) {
  const auto token = impl_->tokenizer.impl_->decoder_token(id, impl_->skip_special);
  return token ? impl_->stream.push(*token) : std::string();
}

std::string StreamDecoder::finish() { return impl_->stream.finish(); }

}  // namespace tessera::text
