#include "fusion/speech.h"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace tessera::fusion {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

std::map<std::string, std::int32_t> read_map(const Config& config) {
  std::map<std::string, std::int32_t> ids;
  for (const std::string& key : config.keys())
    ids[key] = static_cast<std::int32_t>(config.integer(key));
  return ids;
}

std::int32_t id_of(const Config& first, const Config& second, const char* key,
                   std::int64_t fallback) {
  return static_cast<std::int32_t>(first.integer(key, second.integer(key, fallback)));
}

/// forced_decoder_ids: [[1, id or null], [2, id], ...]; what is not in order from 1 ends the list.
std::vector<std::optional<std::int32_t>> read_forced(const Config& list) {
  std::vector<std::optional<std::int32_t>> forced;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].size() != 2 || list[i][0].as_integer() != static_cast<std::int64_t>(i) + 1) break;
    const Config id = list[i][1];
    forced.push_back(id.is_number() ? std::optional(static_cast<std::int32_t>(id.as_integer()))
                                    : std::nullopt);
  }
  return forced;
}

std::optional<double> optional_number(const Config& config, const char* key) {
  if (!config.has(key)) return std::nullopt;
  return config.number(key);
}

std::optional<std::int32_t> previous_token(const Config& generation_config) {
  if (generation_config.has("prev_sot_token_id"))
    return static_cast<std::int32_t>(generation_config.integer("prev_sot_token_id"));
  const std::vector<std::int64_t> suppressed = generation_config.integers("suppress_tokens");
  if (suppressed.size() < 2) return std::nullopt;
  return static_cast<std::int32_t>(suppressed[suppressed.size() - 2]);
}

}  // namespace

Fallback Fallback::recommended() { return {{0, 0.2, 0.4, 0.6, 0.8, 1.0}, 1.35, -1.0, 0.6}; }

void Fallback::validate() const {
  for (const double t : temperatures) {
    if (!(t >= 0 && std::isfinite(t)))
      throw ArgumentError(concat("a temperature is ", t, ", but must be 0 or more"));
  }
  if (no_speech_threshold && !logprob_threshold) {
    throw ArgumentError(
        "a no-speech threshold only counts together with a log-probability threshold; set both");
  }
}

SpeechTokens::SpeechTokens(const Config& g, const Config& c)
    : start(id_of(g, c, "decoder_start_token_id", 50258)),
      end(id_of(g, c, "eos_token_id", 50257)),
      no_timestamps(static_cast<std::int32_t>(g.integer("no_timestamps_token_id", start + 105))),
      timestamp_begin(no_timestamps + 1),
      languages(read_map(g.child("lang_to_id"))),
      tasks(read_map(g.child("task_to_id"))),
      forced(read_forced(g.has("forced_decoder_ids") ? g.at("forced_decoder_ids")
                                                     : c.child("forced_decoder_ids"))) {
  previous = previous_token(g);
  fallback.compression_ratio_threshold = optional_number(g, "compression_ratio_threshold");
  fallback.logprob_threshold = optional_number(g, "logprob_threshold");
  fallback.no_speech_threshold = optional_number(g, "no_speech_threshold");
  condition_on_previous = g.boolean("condition_on_prev_tokens", false);
  if (g.has("max_initial_timestamp_index"))
    max_initial_timestamp_index = g.integer("max_initial_timestamp_index");
}

std::int32_t SpeechTokens::language_id(const std::string& language) const {
  if (languages.empty()) {
    throw ArgumentError(concat("this checkpoint knows English only and takes no language (\"",
                               language, "\" given)"));
  }
  std::string name = language;
  std::ranges::transform(name, name.begin(),
                         [](unsigned char ch) { return static_cast<char>(std::tolower(ch)); });
  const std::string code = language_code_of(name);
  for (const std::string& token : {name, "<|" + name + "|>", "<|" + code + "|>"}) {
    if (const auto found = languages.find(token); found != languages.end()) return found->second;
  }
  std::string known;
  for (const auto& [token, id] : languages) {
    known += (known.empty() ? "" : ", ") +
             (token.size() > 4 ? token.substr(2, token.size() - 4) : token);
  }
  throw ArgumentError(
      concat("language \"", language, "\" is not one this checkpoint knows: ", known));
}

std::string SpeechTokens::language_code(std::int32_t id) const {
  for (const auto& [token, known] : languages) {
    if (known == id) return token.size() > 4 ? token.substr(2, token.size() - 4) : token;
  }
  return {};
}

bool SpeechTokens::needs_detection() const {
  return !languages.empty() && (forced.empty() || !forced.front());
}

std::vector<std::int32_t> SpeechTokens::start_sequence(std::optional<std::int32_t> language,
                                                       bool language_named, const std::string& task,
                                                       bool timestamps) const {
  std::vector<std::optional<std::int32_t>> ids{start};
  if (task.empty() && !language_named) ids.insert(ids.end(), forced.begin(), forced.end());
  if (language) {
    if (ids.size() > 1) {
      ids[1] = language;
    } else {
      ids.push_back(language);
    }
  }
  const auto is_task = [&](const std::optional<std::int32_t>& id) {
    return id && std::ranges::any_of(tasks, [&](const auto& t) { return t.second == *id; });
  };
  const std::string wanted = !task.empty() ? task : language_named ? "transcribe" : "";
  if (!wanted.empty() && !(tasks.empty() && wanted == "transcribe")) {
    const auto found = tasks.find(wanted);
    if (found == tasks.end())
      throw ArgumentError(concat("this checkpoint has no task \"", wanted, "\""));
    std::erase_if(ids, is_task);
    ids.push_back(found->second);
  }
  const bool ends_without = ids.back() == no_timestamps;
  if (!timestamps && !ends_without) ids.push_back(no_timestamps);
  if (timestamps && ends_without) ids.pop_back();
  std::vector<std::int32_t> known;
  for (const auto& id : ids) {
    if (id) known.push_back(*id);
  }
  return known;
}

void SpeechTokens::apply_timestamp_rules(std::span<const std::int32_t> generated,
                                         std::span<float> logits) const {
  const auto forbid = [&](std::int64_t begin, std::int64_t stop) {
    const auto size = static_cast<std::int64_t>(logits.size());
    for (std::int64_t i = std::max<std::int64_t>(begin, 0); i < std::min(stop, size); ++i) {
      logits[static_cast<std::size_t>(i)] = kNever;
    }
  };
  const auto vocab = static_cast<std::int64_t>(logits.size());
  const std::size_t count = generated.size();
  forbid(no_timestamps, no_timestamps + 1);

  const bool last = count >= 1 && generated[count - 1] >= timestamp_begin;
  const bool before_last = count < 2 || generated[count - 2] >= timestamp_begin;
  if (last && before_last) forbid(timestamp_begin, vocab);  // a pair is complete: text must follow
  if (last && !before_last) forbid(0, end);                 // a pair has begun: no text now

  const auto newest = std::find_if(generated.rbegin(), generated.rend(),
                                   [&](auto id) { return id >= timestamp_begin; });
  if (newest != generated.rend())
    forbid(timestamp_begin, last && !before_last ? *newest : *newest + 1);

  if (count == 0) {
    forbid(0, timestamp_begin);
    if (max_initial_timestamp_index)
      forbid(timestamp_begin + *max_initial_timestamp_index + 1, vocab);
  }

  if (timestamp_begin >= vocab) return;
  const auto text_end = logits.begin() + timestamp_begin;
  const float best_text = *std::max_element(logits.begin(), text_end),
              best = *std::max_element(text_end, logits.end());
  if (best == kNever) return;
  double sum = 0;
  for (auto it = text_end; it != logits.end(); ++it)
    sum += std::exp(static_cast<double>(*it) - best);
  if (best + std::log(sum) > best_text) forbid(0, timestamp_begin);
}

double compression_ratio(std::span<const std::int32_t> ids, std::int64_t vocab_size) {
  if (ids.empty()) return 0;
  const int width = static_cast<int>(std::log2(static_cast<double>(vocab_size)) / 8) + 1;
  std::vector<Bytef> bytes;
  for (const std::int32_t id : ids) {
    for (int i = 0; i < width; ++i)
      bytes.push_back(static_cast<Bytef>(static_cast<std::uint32_t>(id) >> (8 * i)));
  }
  uLongf size = compressBound(static_cast<uLong>(bytes.size()));
  std::vector<Bytef> packed(size);
  if (compress(packed.data(), &size, bytes.data(), static_cast<uLong>(bytes.size())) != Z_OK)
    throw std::bad_alloc();  // the only way it can fail
  return static_cast<double>(bytes.size()) / static_cast<double>(size);
}

double untimed_length(std::int64_t frames) {
  return static_cast<double>(std::trunc(static_cast<float>(frames) * 0.01f / 0.02f)) * 0.02;
}

}  // namespace tessera::fusion
