#include "text/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string_view>

#include "core/error.h"
#include "text/tokenizer_regex.h"
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

/// What BLEU is made of, summed over a corpus: n-grams, and words.
struct Matches {
  std::array<double, kOrders> correct{}, guessed{};
  double length = 0, reference_length = 0;
};

Matches match(const std::vector<Scored>& corpus) {
  check_references(corpus);
  Matches m;
  for (const Scored& item : corpus) {
    const auto words = static_cast<std::int64_t>(item.hypothesis.size());
    m.length += static_cast<double>(words);
    m.reference_length += static_cast<double>(closest_length(item.references, words));
    const Counts largest = largest_counts(item.references);
    for (const auto& [ngram, count] : count_ngrams(item.hypothesis)) {
      m.guessed[ngram.size() - 1] += static_cast<double>(count);
      if (const auto found = largest.find(ngram); found != largest.end())
        m.correct[ngram.size() - 1] += static_cast<double>(std::min(count, found->second));
    }
  }
  return m;
}

/// n-grams with their weights (count times inverse document frequency), and the lengths of the
/// vectors that those of each order make.
struct WeightedNgrams {
  std::map<Words, double> weights;
  std::array<double, kOrders> norms{};
  double bigrams = 0;  // what the reference calls the length
};

/// Of a caption, where `documents` is in how many items of `items` an n-gram is.
WeightedNgrams weigh(const Words& words, const Counts& documents, std::size_t items) {
  WeightedNgrams out;
  const double all = std::log(static_cast<double>(items));
  for (const auto& [ngram, count] : count_ngrams(words)) {
    const auto found = documents.find(ngram);
    const auto in = static_cast<double>(found == documents.end() ? 1 : found->second);
    const double weight = static_cast<double>(count) * (all - std::log(in));
    out.weights[ngram] = weight;
    out.norms[ngram.size() - 1] += weight * weight;
    if (ngram.size() == 2) out.bigrams += static_cast<double>(count);
  }
  for (double& norm : out.norms) norm = std::sqrt(norm);
  return out;
}

/// The mean over the orders of clipped cosines, less for captions of other lengths.
double cider_similarity(const WeightedNgrams& hypothesis, const WeightedNgrams& reference) {
  constexpr double kSigma = 6;
  std::array<double, kOrders> dot{};
  for (const auto& [ngram, weight] : hypothesis.weights) {
    if (const auto found = reference.weights.find(ngram); found != reference.weights.end())
      dot[ngram.size() - 1] += std::min(weight, found->second) * found->second;
  }
  const double delta = hypothesis.bigrams - reference.bigrams;
  const double penalty = std::exp(-delta * delta / (2 * kSigma * kSigma));
  double sum = 0;
  for (std::size_t n = 0; n < kOrders; ++n) {
    const double norms = hypothesis.norms[n] * reference.norms[n];
    sum += (norms != 0 ? dot[n] / norms : dot[n]) * penalty;
  }
  return sum / static_cast<double>(kOrders);
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size())
    text.replace(at, from.size(), to);
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

Words split_13a(const std::string& text) {
  static const auto pattern = [](const char* p) { return Regex(p, "tokenisation 13a"); };
  static const Regex symbols = pattern(R"(([{-~\[-` -&(-+:-@/]))"),
                     after_no_digit = pattern(R"(([^0-9])([.,]))"),
                     before_no_digit = pattern(R"(([.,])([^0-9]))"), dash = pattern("([0-9])(-)");
  std::string line = text.substr(0, text.find_last_not_of(" \t\n\v\f\r") + 1);
  for (const auto& [from, to] :
       std::initializer_list<std::pair<const char*, const char*>>{{"<skipped>", ""},
                                                                  {"-\n", ""},
                                                                  {"\n", " "},
                                                                  {"&quot;", "\""},
                                                                  {"&amp;", "&"},
                                                                  {"&lt;", "<"},
                                                                  {"&gt;", ">"}})
    replace_all(line, from, to);
  line = symbols.replace(concat(" ", line, " "), " \\1 ");
  line = after_no_digit.replace(line, "\\1 \\2 ");
  line = before_no_digit.replace(line, " \\1 \\2");
  return split_words(dash.replace(line, "\\1 \\2 "));
}

Words split_caption(const std::string& text) {
  static const auto pattern = [](const char* p) { return Regex(p, "words of captions"); };
  static const Regex punctuation = pattern(R"(([^\w\s'.,:-]|[,:](?![0-9])|(?<![0-9])[,:]|--+))"),
                     contraction = pattern(R"((n't|'(?:s|m|d|ll|re|ve))(?![\w']))"),
                     cannot = pattern(R"(\b(can)(not)\b)"),
                     abbreviation = pattern(R"(\A(?:(?:[a-z]\.)+|(?:mr|mrs|ms|dr|jr|sr|st)\.)\z)"),
                     edges = pattern(
                         R"(\A(?:-+|'+(?!n'\z|(?:s|m|d|ll|re|ve)\z))|(?:[.-]+|(?<!n)'+)\z)");
  static const std::map<std::string, std::string> brackets = {{"(", "-lrb-"}, {")", "-rrb-"},
                                                              {"[", "-lsb-"}, {"]", "-rsb-"},
                                                              {"{", "-lcb-"}, {"}", "-rcb-"}};
  static const std::set<std::string> dropped = {"''", "'", "``", "`", "?", "!", ",", ":",
                                                "--", ";", "\"", "“", "”", "‘", "’", "…"};
  std::string line = punctuation.replace(lowercase(replace_invalid_utf8(text)), " \\1 ");
  line = cannot.replace(contraction.replace(line, " \\1 "), "\\1 \\2");
  Words words;
  for (std::string& word : split_words(line)) {
    if (abbreviation.parts(word).front().match) {
      words.push_back(std::move(word));
    } else if (const auto bracket = brackets.find(word); bracket != brackets.end()) {
      words.push_back(bracket->second);
    } else {
      word = edges.replace(word, "");
      if (!word.empty() && !dropped.count(word)) words.push_back(std::move(word));
    }
  }
  return words;
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
  const auto [correct, guessed, length, reference_length] = match(corpus);
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

double translation_bleu(const std::vector<Scored>& corpus) {
  const auto [correct, guessed, length, reference_length] = match(corpus);
  if (std::ranges::all_of(correct, [](double count) { return count == 0; })) return 0;
  double sum = 0, smoothing = 1;
  for (std::size_t n = 0; n < kOrders; ++n) {
    if (guessed[n] == 0) return 0;  // every item is shorter than n words
    if (correct[n] == 0) smoothing *= 2;
    const double precision = correct[n] == 0 ? 1 / smoothing : correct[n];
    sum += std::log(100 * precision / guessed[n]);
  }
  const double penalty = length < reference_length ? std::exp(1 - reference_length / length) : 1;
  return penalty * std::exp(sum / static_cast<double>(kOrders));
}

CiderD::CiderD(const std::vector<std::vector<Words>>& references) : items_(references.size()) {
  for (const std::vector<Words>& item : references) {
    for (const auto& [ngram, count] : largest_counts(item)) ++documents_[ngram];
  }
}

double CiderD::operator()(const Words& hypothesis, const std::vector<Words>& references) const {
  const WeightedNgrams own = weigh(hypothesis, documents_, items_);
  double sum = 0;
  for (const Words& reference : references)
    sum += cider_similarity(own, weigh(reference, documents_, items_));
  return 10 * sum / static_cast<double>(references.size());
}

std::vector<double> cider_d(const std::vector<Scored>& corpus) {
  check_references(corpus);
  std::vector<std::vector<Words>> references;
  for (const Scored& item : corpus) references.push_back(item.references);
  const CiderD score(references);
  std::vector<double> scores;
  for (const Scored& item : corpus) scores.push_back(score(item.hypothesis, item.references));
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

void Confusion::add(const std::string& truth, const std::string& given) {
  ++counts_[{truth, given}];
  ++total_;
}

std::vector<std::string> Confusion::classes() const {
  std::set<std::string> names;
  for (const auto& [pair, count] : counts_) names.insert({pair.first, pair.second});
  return {names.begin(), names.end()};
}

double Confusion::accuracy() const {
  std::int64_t right = 0;
  for (const auto& [pair, count] : counts_) right += pair.first == pair.second ? count : 0;
  return static_cast<double>(right) / static_cast<double>(total_);
}

double Confusion::f1(const std::string& name) const {
  std::int64_t right = 0, involved = 0;  // true positives; twice these and false ones of both kinds
  for (const auto& [pair, n] : counts_) {
    const bool truth = pair.first == name, given = pair.second == name;
    involved += (truth ? n : 0) + (given ? n : 0);
    if (truth && given) right = n;
  }
  if (involved == 0) return 0;
  return 2 * static_cast<double>(right) / static_cast<double>(involved);
}

double Confusion::macro_f1() const {
  double sum = 0;
  const std::vector<std::string> names = classes();
  for (const std::string& name : names) sum += f1(name);
  return sum / static_cast<double>(names.size());
}

}  // namespace tessera::text
