#pragma once
#include <map>
#include <string>
#include <vector>

#include "fusion/examples.h"
#include "text/metrics.h"

namespace tessera::fusion {

/// What an answer is worth beside the texts of its example: the sum of scores named "cider-d" or
/// "bleu" (of one sentence, smoothed, in [0, 1]), their words those of captions. The end of the
/// answer counts as a word, and an answer that breaks off (its last word is a frequent one that
/// hardly ever ends a text of the examples, as "is") loses 1, for scores of n-grams alone would
/// rather leave out what is uncertain.
class AnswerReward {
 public:
  /// Throws ArgumentError for another name, or none.
  AnswerReward(const Examples& examples, const std::vector<std::string>& names);
  double operator()(const Example& example, const std::string& answer, bool ended) const;

 private:
  bool breaks_off(const text::Words& words) const;

  std::map<std::int64_t, std::vector<text::Words>> references_;  // by line
  struct Uses {
    std::int64_t all = 0, last = 0;
  };
  std::map<std::string, Uses> uses_;  // of words in the references
  std::map<std::string, double> weights_;
  text::CiderD cider_;
};

/// The texts of an example that stand behind no prompt of their own.
std::vector<std::string> unprompted(const Example& example);

}  // namespace tessera::fusion
