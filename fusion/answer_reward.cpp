#include "fusion/answer_reward.h"

#include "core/error.h"

namespace tessera::fusion {
namespace {

text::Words words_of(const std::string& answer, bool ended) {
  text::Words words = text::split_caption(answer);
  if (ended) words.push_back(".");
  return words;
}

std::map<std::int64_t, std::vector<text::Words>> read_references(const Examples& examples) {
  std::map<std::int64_t, std::vector<text::Words>> all;
  for (const Example& example : examples.list) {
    for (const std::string& text : unprompted(example))
      all[example.line].push_back(words_of(text, true));
  }
  return all;
}

std::vector<std::vector<text::Words>> values(
    const std::map<std::int64_t, std::vector<text::Words>>& all) {
  std::vector<std::vector<text::Words>> out;
  for (const auto& [line, references] : all) out.push_back(references);
  return out;
}

}  // namespace

std::vector<std::string> unprompted(const Example& example) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < example.texts.size(); ++i)
    if (prompt_before(example, i).empty()) texts.push_back(example.texts[i]);
  return texts;
}

AnswerReward::AnswerReward(const Examples& examples, const std::vector<std::string>& names)
    : references_(read_references(examples)), cider_(values(references_)) {
  if (names.empty()) throw ArgumentError("a reward has to be named: cider-d or bleu");
  for (const std::string& name : names) {
    if (name != "cider-d" && name != "bleu")
      throw ArgumentError(concat("\"", name, "\" is no reward; there are cider-d and bleu"));
    weights_[name] += 1;
  }
  for (const auto& [line, texts] : references_) {
    for (const text::Words& words : texts) {
      for (std::size_t i = 0; i + 1 < words.size(); ++i) {  // behind the last one is the end
        ++uses_[words[i]].all;
        uses_[words[i]].last += i + 2 == words.size();
      }
    }
  }
}

bool AnswerReward::breaks_off(const text::Words& words) const {
  constexpr std::int64_t kFrequent = 100, kLeastShare = 500;  // one in so many
  const auto found = words.empty() ? uses_.end() : uses_.find(words.back());
  return found != uses_.end() && found->second.all >= kFrequent &&
         found->second.last * kLeastShare < found->second.all;
}

double AnswerReward::operator()(const Example& example, const std::string& answer,
                                bool ended) const {
  const std::vector<text::Words>& references = references_.at(example.line);
  const text::Words words = words_of(answer, ended);
  double sum = breaks_off(text::split_caption(answer)) ? -1 : 0;
  for (const auto& [name, weight] : weights_) {
    sum += weight * (name == "bleu" ? text::translation_bleu({{words, references}}) / 100
                                    : cider_(words, references));
  }
  return sum;
}

}  // namespace tessera::fusion
