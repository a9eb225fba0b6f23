#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
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

/// Words as the machine translation conferences score them: the tokenisation 13a of mteval and
/// sacrebleu.
Words split_13a(const std::string& text);
/// Words of a caption as pycocoevalcap scores them: lower case, contractions apart, no punctuation
/// (Stanford's PTBTokenizer, as far as captions need it).
Words split_caption(const std::string& text);

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

/// BLEU of translations in [0, 100]: exponential smoothing, as sacrebleu's corpus_bleu. Give it
/// words of split_13a(). Throws ArgumentError for an item without references.
double translation_bleu(const std::vector<Scored>& corpus);

/// CIDEr-D of single texts, where n-grams are as rare as in references given once (each item's are
/// one document).
class CiderD {
 public:
  explicit CiderD(const std::vector<std::vector<Words>>& references);
  double operator()(const Words& hypothesis, const std::vector<Words>& references) const;

 private:
  std::map<Words, std::int64_t> documents_;  // how many have each n-gram
  std::size_t items_;
};

/// CIDEr-D of each item (Vedantam et al. 2015; sigma 6), as pycocoevalcap's Cider: document
/// frequencies are those of the corpus itself, so one item alone has 0. Throws ArgumentError for an
/// item without references.
std::vector<double> cider_d(const std::vector<Scored>& corpus);

/// ROUGE-L of each item in [0, 1] (Lin 2004; beta 1.2, best precision and best recall), as
/// pycocoevalcap's Rouge. Throws ArgumentError for an item without references.
std::vector<double> rouge_l(const std::vector<Scored>& corpus);

/// Classes given beside classes true.
class Confusion {
 public:
  void add(const std::string& truth, const std::string& given);
  /// Sorted by name.
  std::vector<std::string> classes() const;
  /// How often each pair of (truth, given) was seen.
  const std::map<std::pair<std::string, std::string>, std::int64_t>& counts() const {
    return counts_;
  }
  std::int64_t total() const { return total_; }
  /// Not a number where nothing was added.
  double accuracy() const;
  /// 2 TP / (2 TP + FP + FN); 0 where that is 0 / 0. As scikit-learn's f1_score.
  double f1(const std::string& name) const;
  /// The mean over all classes.
  double macro_f1() const;

 private:
  std::map<std::pair<std::string, std::string>, std::int64_t> counts_;
  std::int64_t total_ = 0;
};

}  // namespace tessera::text
