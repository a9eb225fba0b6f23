#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/tokenizer_decoder.h"
#include "text/tokenizer_pattern.h"
#include "text/tokenizer_unicode.h"

/// The stages that tokenizer.json's decoders are made of.
namespace tessera::text::stages {

class Stage : public TokenSink {
 public:
  explicit Stage(TokenSink& next) : next_(next) {}
  void text(std::string_view part) override { next_.text(part); }
  void end_token() override { next_.end_token(); }
  void finish() override { next_.finish(); }

 protected:
  TokenSink& next_;
};

/// A stage that needs whole tokens.
class WholeTokens : public Stage {
 public:
  using Stage::Stage;
  void text(std::string_view part) override { token_ += part; }
  void end_token() override {
    token(token_);
    token_.clear();
  }

 protected:
  virtual void token(std::string_view whole) = 0;
  void give(std::string_view whole) {
    next_.text(whole);
    next_.end_token();
  }

 private:
  std::string token_;
};

/// No decoder: a space between tokens.
class Join : public Stage {
 public:
  using Stage::Stage;
  void end_token() override { space_ = true; }
  void text(std::string_view part) override {
    if (space_) next_.text(" ");
    space_ = false;
    next_.text(part);
  }

 private:
  bool space_ = false;
};

/// All tokens become one.
class Fuse : public Stage {
 public:
  using Stage::Stage;
  void end_token() override {}
  void finish() override {
    next_.end_token();
    next_.finish();
  }
};

/// Characters to bytes, and those to text; a token with other characters stands for its own bytes.
class ByteLevel : public WholeTokens {
 public:
  using WholeTokens::WholeTokens;
  void finish() override;

 protected:
  void token(std::string_view whole) override;

 private:
  std::string bytes_;  // the start of a character
};

/// Runs of <0xNN> to the text they are, or to as many U+FFFD where they are none.
class ByteFallback : public WholeTokens {
 public:
  using WholeTokens::WholeTokens;
  void finish() override;

 protected:
  void token(std::string_view whole) override;

 private:
  void give_bytes();
  std::string bytes_;
};

/// The end-of-word suffix becomes a space, in the last token nothing.
class BpeSuffix : public WholeTokens {
 public:
  BpeSuffix(TokenSink& next, std::string suffix) : WholeTokens(next), suffix_(std::move(suffix)) {}
  void finish() override;

 protected:
  void token(std::string_view whole) override;

 private:
  void give_held(std::string_view replacement);
  std::string suffix_, held_;
  bool holds_ = false;
};

/// Replaces the matches of a regular expression in each token.
class ReplacePattern : public WholeTokens {
 public:
  ReplacePattern(TokenSink& next, Pattern pattern, std::string content)
      : WholeTokens(next), pattern_(std::move(pattern)), content_(std::move(content)) {}

 protected:
  void token(std::string_view whole) override { give(pattern_.replace(whole, content_)); }

 private:
  Pattern pattern_;
  std::string content_;
};

/// Replaces a string in each token, and holds back only what may be the start of one.
class ReplaceLiteral : public Stage {
 public:
  ReplaceLiteral(TokenSink& next, std::string literal, std::string content)
      : Stage(next), literal_(std::move(literal)), content_(std::move(content)) {}
  void text(std::string_view part) override;
  void end_token() override;

 private:
  std::string literal_, content_, held_;
};

/// The mark of Metaspace becomes a space; in the first token it may become nothing.
class Metaspace : public Stage {
 public:
  Metaspace(TokenSink& next, std::string mark, bool drop_first)
      : Stage(next), mark_(std::move(mark)), drop_(drop_first) {}
  void text(std::string_view part) override;
  void end_token() override {
    drop_ = false;
    next_.end_token();
  }

 private:
  std::string mark_;
  bool drop_;
};

/// Takes up to `start` of one character from the start of each token, and up to `stop` from its
/// end.
class Strip : public Stage {
 public:
  Strip(TokenSink& next, std::string character, std::int64_t start, std::int64_t stop)
      : Stage(next), character_(std::move(character)), start_(start), stop_(stop), to_cut_(start) {}
  void text(std::string_view part) override;
  void end_token() override;

 private:
  std::string character_;
  std::int64_t start_, stop_;
  std::int64_t to_cut_;    // of this character, while the token has had nothing else
  std::int64_t held_ = 0;  // of it at the end so far
};

}  // namespace tessera::text::stages
