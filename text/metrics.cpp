#include "text/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "core/error.h"
#include "text/tokenizer_unicode.h"

namespace tessera::text {
namespace {

constexpr std::size_t kOrders = 4;  // n-grams of 1 to 4 words
using Counts = std::map<Words, std::int64_t>;

Counts count_ngrams(const Words& words) {
  Counts counts;
  for (std::size_t n = 1; n <= kOrders; ++n) {
    for (std::size_t i = 0; i + n <= words.size(); ++i) {
      const auto first = words.begin() + static_cast<std::ptrdiff_t>(i);
      ++counts[Words(first, first + static_cast<std::ptrdiff_t>(n))];
    }
  }
  return counts;
}

void check_references(const std::vector<Scored>& corpus) {
  for (std::size_t i = 0; i < corpus.size(); ++i)
    if (corpus[i].references.empty())
      throw ArgumentError(concat("item ", i + 1, " has no reference to be scored against"));
}

/// The largest count of each n-gram in one of the references.
Counts largest_counts(const std::vector<Words>& references) {
  Counts largest;
  for (const Words& reference : references) {
    for (const auto& [ngram, count] : count_ngrams(reference)) {
      std::int64_t& most = largest[ngram];
      most = std::max(most, count);
    }
  }
  return largest;
}

/// The reference length nearest to `length`, the shorter of two.
std::int64_t closest_length(const std::vector<Words>& references, std::int64_t length) {
  std::pair<std::int64_t, std::int64_t> best{std::numeric_limits<std::int64_t>::max(), 0};
  for (const Words& reference : references) {
    const auto n = static_cast<std::int64_t>(reference.size());
    best = std::min(best, {std::abs(n - length), n});
  }
  return best.second;
}

std::int64_t longest_common_subsequence(const Words& a, const Words& b) {
  std::vector<std::int64_t> row(b.size() + 1, 0);
  for (const std::string& word : a) {
    std::int64_t diagonal = 0;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::int64_t above = row[j + 1];
      row[j + 1] = word == b[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

Words split_words(const std::string& text) {
  Words words;
  bool inside = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (CharClasses::get().is(next_char(text, at), CharClasses::kSpace)) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    words.back().append(text, begin, at - begin);
  }
  return words;
}

Words split_characters(const std::string& text) {
  Words characters;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    next_char(text, at);
    characters.push_back(text.substr(begin, at - begin));
  }
  return characters;
}

std::int64_t edit_distance(const Words& a, const Words& b) {
  std::vector<std::int64_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::int64_t{0});
  for (const std::string& word : a) {
    std::int64_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::int64_t replaced = diagonal + (word == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

void ErrorRate::add(const Words& reference, const Words& hypothesis) {
  edits += edit_distance(reference, hypothesis);
  units += static_cast<std::int64_t>(reference.size());
}

double ErrorRate::rate() const {
  if (units == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(edits) / static_cast<double>(units);
}

std::vector<double> bleu(const std::vector<Scored>& corpus) {
  check_references(corpus);
  std::array<double, kOrders> correct{}, guessed{};
  double length = 0, reference_length = 0;
  for (const Scored& item : corpus) {
    const auto words = static_cast<std::int64_t>(item.hypothesis.size());
    length += static_cast<double>(words);
    reference_length += static_cast<double>(closest_length(item.references, words));
    const Counts largest = largest_counts(item.references);
    for (const auto& [ngram, count] : count_ngrams(item.hypothesis)) {
      guessed[ngram.size() - 1] += static_cast<double>(count);
      if (const auto found = largest.find(ngram); found != largest.end())
        correct[ngram.size() - 1] += static_cast<double>(std::min(count, found->second));
    }
  }
  constexpr double kSmall = 1e-9, kTiny = 1e-15;  // the reference's guards against 0 / 0
  const double ratio = (length + kTiny) / (reference_length + kSmall);
  const double penalty = ratio < 1 ? std::exp(1 - 1 / ratio) : 1;
  std::vector<double> scores;
  double product = 1;
  for (std::size_t n = 0; n < kOrders; ++n) {
    product *= (correct[n] + kTiny) / (guessed[n] + kSmall);
    scores.push_back(penalty * std::pow(product, 1.0 / static_cast<double>(n + 1)));
  }
  return scores;
}

std::vector<double> rouge_l(const std::vector<Scored>& corpus) {
  check_references(corpus);
  constexpr double kBeta2 = 1.2 * 1.2;
  std::vector<double> scores;
  for (const Scored& item : corpus) {
    double precision = 0, recall = 0;
    for (const Words& reference : item.references) {
      const auto common =
          static_cast<double>(longest_common_subsequence(reference, item.hypothesis));
      if (common == 0) continue;
      precision = std::max(precision, common / static_cast<double>(item.hypothesis.size()));
      recall = std::max(recall, common / static_cast<double>(reference.size()));
    }
    scores.push_back(
        precision == 0 ? 0 : (1 + kBeta2) * precision * recall / (recall + kBeta2 * precision));
  }
  return scores;
}

}  // namespace tessera::text
