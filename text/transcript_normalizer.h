#pragma once
#include <filesystem>
#include <map>
#include <string>

// Transcripts without what is a matter of style, so that word error rates count what was heard
// (Radford et al. 2022, appendix C): equal to HF transformers' port of Whisper's normalisers.
namespace tessera::text {

/// Any language: lower case, no brackets and what is in them, no punctuation and symbols, single
/// spaces. Whisper's BasicTextNormalizer.
std::string normalize_transcript(const std::string& text);

/// English: the same without diacritics, with contractions and titles written out, numbers and
/// sums of money in digits, fillers left out, spelling mapped. Whisper's EnglishTextNormalizer.
class EnglishNormalizer {
 public:
  using Spellings = std::map<std::string, std::string>;
  /// `spellings`: British words -> American ones; Whisper's table is the normalizer.json of a
  /// published checkpoint.
  explicit EnglishNormalizer(Spellings spellings = {}) : spellings_(std::move(spellings)) {}
  /// With a checkpoint's normalizer.json, or without spellings where it has none. Throws IoError,
  /// FormatError.
  static EnglishNormalizer of_checkpoint(const std::filesystem::path& directory);

  std::string operator()(const std::string& text) const;
  bool has_spellings() const { return !spellings_.empty(); }

 private:
  Spellings spellings_;
};

}  // namespace tessera::text
