#include "text/tokenizer_decoder.h"

#include <utility>

#include "core/error.h"
#include "text/tokenizer_decoder_stages.h"

namespace tessera::text {
namespace {

constexpr std::int64_t kMaxStrip = 1 << 20;

/// What transformers' clean_up_tokenization replaces, in its order.
constexpr std::pair<const char*, const char*> kCleanUp[] = {
    {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

template <class Stage, class... Args>
auto maker(Args... args) {
  return [args...](TokenSink& next) -> std::unique_ptr<TokenSink> {
    return std::make_unique<Stage>(next, args...);
  };
}

}  // namespace

struct Decoder::Stream::Output : TokenSink {
  std::string out;
  void text(std::string_view part) override { out += part; }
  void end_token() override {}
  void finish() override {}
};

Decoder::Decoder() : stages_{maker<stages::Join>()} {}

Decoder Decoder::byte_level() {
  Decoder out;
  out.stages_ = {maker<stages::ByteLevel>()};
  return out;
}

Decoder::Decoder(const JsonView& json) { add(json); }

void Decoder::add(const JsonView& json) {
  const std::string type = json.string("type");
  if (type == "Sequence") {
    for (const JsonView& element : json.elements("decoders")) add(element);
  } else if (type == "ByteLevel") {
    stages_.emplace_back(maker<stages::ByteLevel>());
  } else if (type == "ByteFallback") {
    stages_.emplace_back(maker<stages::ByteFallback>());
  } else if (type == "Fuse") {
    stages_.emplace_back(maker<stages::Fuse>());
  } else if (type == "Strip") {
    std::string character;
    append_char(character, json.character("content"));
    stages_.emplace_back(maker<stages::Strip>(character, json.integer("start", kMaxStrip),
                                              json.integer("stop", kMaxStrip)));
  } else if (type == "Replace") {
    const Pattern pattern(json.at("pattern"));
    const std::string content = json.string("content");
    if (pattern.literal().empty()) {
      stages_.emplace_back(maker<stages::ReplacePattern>(pattern, content));
    } else {
      stages_.emplace_back(maker<stages::ReplaceLiteral>(pattern.literal(), content));
    }
  } else if (type == "Metaspace") {
    std::string mark;
    append_char(mark, json.character("replacement"));
    stages_.emplace_back(maker<stages::Metaspace>(
        mark, json.optional_string("prepend_scheme").value_or("always") != "never"));
  } else if (type == "BPEDecoder") {
    const std::string suffix = json.string("suffix");
    if (suffix.empty())
      throw UnsupportedError(concat(json.where(), ": an empty suffix is not supported"));
    stages_.emplace_back(maker<stages::BpeSuffix>(suffix));
  } else {
    throw UnsupportedError(
        concat(json.where(), ": decoder type '", type,
               "' is not supported; known are ByteLevel, "
               "ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder and Sequence"));
  }
}

Decoder::Stream::Stream(const Decoder& decoder, bool clean_up_spaces)
    : output_(std::make_unique<Output>()) {
  const auto before = [&](std::unique_ptr<TokenSink> stage) {
    stages_.push_back(std::move(stage));
  };
  if (clean_up_spaces) {
    for (std::size_t i = std::size(kCleanUp); i-- > 0;)
      before(
          std::make_unique<stages::ReplaceLiteral>(first(), kCleanUp[i].first, kCleanUp[i].second));
    before(std::make_unique<stages::Fuse>(first()));
  }
  for (auto make = decoder.stages_.rbegin(); make != decoder.stages_.rend(); ++make)
    before((*make)(first()));
}

Decoder::Stream::~Stream() = default;
Decoder::Stream::Stream(Stream&&) noexcept = default;

TokenSink& Decoder::Stream::first() { return stages_.empty() ? *output_ : *stages_.back(); }

std::string Decoder::Stream::push(std::string_view token) {
  first().text(token);
  first().end_token();
  return std::exchange(output_->out, {});
}

std::string Decoder::Stream::finish() {
  first().finish();
  return std::exchange(output_->out, {});
}

}  // namespace tessera::text
