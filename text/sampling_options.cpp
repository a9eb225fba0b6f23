// SamplingOptions: reading them from generation_config.json, and their ranges.
#include <cmath>
#include <limits>

#include "core/error.h"
#include "text/sampler.h"

namespace tessera::text {
namespace {

constexpr std::int64_t kMaxBeams = 1024;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void demand(bool holds, const char* option, const std::string& range, double found) {
  if (!holds) throw ArgumentError(concat(option, " has to be ", range, ", but is ", found));
}

void demand_integer(const char* option, std::int64_t value, std::int64_t low,
                    std::int64_t high = std::numeric_limits<std::int64_t>::max()) {
  if (value >= low && value <= high) return;
  const bool open = high == std::numeric_limits<std::int64_t>::max();
  throw ArgumentError(concat(option, " has to be at least ", low,
                             open ? "" : concat(" and at most ", high), ", but is ", value));
}

void demand_id(const char* option, std::int64_t id, std::int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return;
  throw ArgumentError(
      concat(option, " names token ", id, ", but the vocabulary is [0, ", vocab_size, ")"));
}

std::vector<std::int32_t> ids_under(const Config& config, const char* key) {
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : config.integers(key)) {
    if (id < std::numeric_limits<std::int32_t>::min() ||
        id > std::numeric_limits<std::int32_t>::max()) {
      throw FormatError(concat(config.where(), ": ", key, ": ", id, " is no token id"));
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

std::vector<std::int32_t> ids_at(const Config& list) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::int64_t id = list[i].as_integer();
    if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) {
      throw FormatError(concat(list.where(), ": ", id, " is no token id"));
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  if (ids.empty()) throw FormatError(concat(list.where(), ": expected token ids, found none"));
  return ids;
}

SamplingOptions::EarlyStopping early_stopping_under(const Config& config) {
  const Config value = config.at("early_stopping");
  if (value.is_boolean()) {
    return value.as_boolean() ? SamplingOptions::EarlyStopping::yes
                              : SamplingOptions::EarlyStopping::no;
  }
  if (value.is_string() && value.as_string() == "never") {
    return SamplingOptions::EarlyStopping::never;
  }
  throw FormatError(
      concat(value.where(), ": expected true, false or \"never\", found ", value.dump()));
}

std::map<std::int32_t, double> biases_at(const Config& list) {
  std::map<std::int32_t, double> biases;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::vector<std::int32_t> ids = ids_at(list[i][0]);
    if (ids.size() > 1) {
      throw UnsupportedError(concat(list[i].where(),
                                    ": sequence_bias of several tokens is not supported, of "
                                    "single tokens it is"));
    }
    biases[ids.front()] = list[i][1].as_number();
  }
  return biases;
}

/// Ways of generating that would change the result and are not implemented.
void refuse_unsupported(const Config& c) {
  static constexpr struct {
    const char* key;
    double neutral;
  } kNumbers[] = {{"typical_p", 1},
                  {"epsilon_cutoff", 0},
                  {"eta_cutoff", 0},
                  {"penalty_alpha", 0},
                  {"top_h", 1},
                  {"guidance_scale", 1},
                  {"diversity_penalty", 0},
                  {"num_beam_groups", 1},
                  {"encoder_repetition_penalty", 1},
                  {"encoder_no_repeat_ngram_size", 0}};
  for (const auto& [key, neutral] : kNumbers) {
    if (c.number(key, neutral) != neutral) {
      throw UnsupportedError(
          concat(c.where(), ": ", key, " = ", c.number(key), " is not supported; leave it out"));
    }
  }
  for (const char* key : {"renormalize_logits", "remove_invalid_values"}) {
    if (c.boolean(key, false)) {
      throw UnsupportedError(concat(c.where(), ": ", key, " is not supported; leave it out"));
    }
  }
  for (const char* key : {"exponential_decay_length_penalty", "watermarking_config", "dola_layers",
                          "constraints", "force_words_ids"}) {
    if (c.has(key)) {
      throw UnsupportedError(concat(c.where(), ": ", key, " is not supported; leave it out"));
    }
  }
}

}  // namespace

void SamplingOptions::apply(const Config& c) {
  refuse_unsupported(c);
  do_sample = c.boolean("do_sample", do_sample);
  temperature = c.number("temperature", temperature);
  top_k = c.integer("top_k", top_k);
  top_p = c.number("top_p", top_p);
  min_p = c.number("min_p", min_p);
  repetition_penalty = c.number("repetition_penalty", repetition_penalty);
  no_repeat_ngram_size = c.integer("no_repeat_ngram_size", no_repeat_ngram_size);
  num_beams = c.integer("num_beams", num_beams);
  length_penalty = c.number("length_penalty", length_penalty);
  num_return_sequences = c.integer("num_return_sequences", num_return_sequences);
  max_new_tokens = c.integer("max_new_tokens", max_new_tokens);
  max_length = c.integer("max_length", max_length);
  min_new_tokens = c.integer("min_new_tokens", min_new_tokens);
  min_length = c.integer("min_length", min_length);
  if (c.has("early_stopping")) early_stopping = early_stopping_under(c);
  if (c.has("sequence_bias")) logit_bias = biases_at(c.at("sequence_bias"));
  if (c.has("suppress_tokens")) suppress_tokens = ids_under(c, "suppress_tokens");
  if (c.has("begin_suppress_tokens")) begin_suppress_tokens = ids_under(c, "begin_suppress_tokens");
  if (c.has("forced_bos_token_id")) {
    forced_bos_token = static_cast<std::int32_t>(
        c.bounded("forced_bos_token_id", 0, 0, std::numeric_limits<std::int32_t>::max()));
  }
  if (c.has("forced_eos_token_id")) forced_eos_tokens = ids_under(c, "forced_eos_token_id");
  if (c.has("eos_token_id")) stop_tokens = ids_under(c, "eos_token_id");
  if (c.has("stop_strings")) {
    const Config strings = c.at("stop_strings");
    stop_strings =
        strings.is_string() ? std::vector{strings.as_string()} : c.strings("stop_strings");
  }
  if (c.has("bad_words_ids")) {
    const Config words = c.at("bad_words_ids");
    bad_words.clear();
    for (std::size_t i = 0; i < words.size(); ++i) bad_words.push_back(ids_at(words[i]));
  }
}

SamplingOptions SamplingOptions::from_config(const Config& generation_config) {
  SamplingOptions options;
  options.apply(generation_config);
  return options;
}

void SamplingOptions::validate(std::int64_t vocab_size) const {
  demand(temperature >= 0 && temperature < kInfinity, "temperature", "finite and at least 0",
         temperature);
  demand_integer("top_k", top_k, 0);
  demand(top_p > 0 && top_p <= 1, "top_p", "in (0, 1]", top_p);
  demand(min_p >= 0 && min_p <= 1, "min_p", "in [0, 1]", min_p);
  demand(repetition_penalty > 0 && repetition_penalty < kInfinity, "repetition_penalty",
         "finite and greater than 0", repetition_penalty);
  demand(std::isfinite(presence_penalty), "presence_penalty", "finite", presence_penalty);
  demand(std::isfinite(frequency_penalty), "frequency_penalty", "finite", frequency_penalty);
  demand(std::isfinite(length_penalty), "length_penalty", "finite", length_penalty);
  demand_integer("repeat_last_n", repeat_last_n, 0);
  demand_integer("no_repeat_ngram_size", no_repeat_ngram_size, 0);
  demand_integer("max_new_tokens", max_new_tokens, 0);
  demand_integer("max_length", max_length, 0);
  demand_integer("min_new_tokens", min_new_tokens, 0);
  demand_integer("min_length", min_length, 0);
  demand_integer("num_beams", num_beams, 1, kMaxBeams);
  demand_integer("num_return_sequences", num_return_sequences, 1,
                 num_beams > 1 ? num_beams
                 : sampling()  ? kMaxBeams
                               : 1);
  for (const auto& [id, bias] : logit_bias) {
    demand_id("logit_bias", id, vocab_size);
    demand(bias < kInfinity, "logit_bias", "a number below infinity", bias);
  }
  if (forced_bos_token) demand_id("forced_bos_token", *forced_bos_token, vocab_size);
  for (const std::int32_t id : forced_eos_tokens) demand_id("forced_eos_tokens", id, vocab_size);
  for (const auto& word : bad_words) {
    if (word.empty()) throw ArgumentError("bad_words holds an empty sequence of tokens");
  }
  for (const std::string& text : stop_strings) {
    if (text.empty()) throw ArgumentError("stop_strings holds an empty string");
  }
}

}  // namespace tessera::text
