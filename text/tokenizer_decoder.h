#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace tessera::text {

/// What takes tokens, piece by piece. All text is whole UTF-8 characters.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void text(std::string_view part) = 0;  ///< more of the current token
  virtual void end_token() = 0;
  virtual void finish() = 0;  ///< after the last token
};

/// tokenizer.json's "decoder": tokens to text. Const and shared; Stream has the state of one text.
class Decoder {
 public:
  Decoder();  ///< without one: tokens with a space between
  /// Throws FormatError, UnsupportedError for a type that is not known.
  explicit Decoder(const JsonView& json);
  static Decoder byte_level();

  /// Each stage gives text on as soon as nothing that follows can change it.
  class Stream {
   public:
    Stream(const Decoder& decoder, bool clean_up_spaces);
    ~Stream();
    Stream(Stream&&) noexcept;
    /// The text that became certain.
    std::string push(std::string_view token);
    std::string finish();

   private:
    struct Output;
    std::unique_ptr<Output> output_;
    std::vector<std::unique_ptr<TokenSink>> stages_;  // last to first
    TokenSink& first();
  };

 private:
  using MakeStage = std::function<std::unique_ptr<TokenSink>(TokenSink& next)>;
  void add(const JsonView& json);
  std::vector<MakeStage> stages_;
};

}  // namespace tessera::text
