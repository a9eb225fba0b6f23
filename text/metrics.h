#pragma once
#include <cstdint>
#include <string>
#include <vector>

// Scores of generated text beside references, each equal to the reference implementation's.
namespace tessera::text {

using Words = std::vector<std::string>;

/// Words between white space.
Words split_words(const std::string& text);
/// Code points of valid UTF-8, each as a text of its own.
Words split_characters(const std::string& text);

/// The least number of words put in, taken out or replaced that makes b of a (Levenshtein 1966).
/// Takes memory for one row.
std::int64_t edit_distance(const Words& a, const Words& b);

/// Edits over units of the reference: WER of words, CER of characters. Sums over a corpus, as jiwer
/// does.
struct ErrorRate {
  std::int64_t edits = 0, units = 0;
  void add(const Words& reference, const Words& hypothesis);
  /// Not a number where the references are empty.
  double rate() const;
};

/// One generated text, and what people wrote for the same input.
struct Scored {
  Words hypothesis;
  std::vector<Words> references;  ///< at least one
};

/// BLEU-1 to BLEU-4 of a corpus, in [0, 1], with the closest reference length (Papineni et al.
/// 2002), as pycocoevalcap's Bleu. Throws ArgumentError for an item without references.
std::vector<double> bleu(const std::vector<Scored>& corpus);

/// ROUGE-L of each item in [0, 1] (Lin 2004; beta 1.2, best precision and best recall), as
/// pycocoevalcap's Rouge. Throws ArgumentError for an item without references.
std::vector<double> rouge_l(const std::vector<Scored>& corpus);

}  // namespace tessera::text
