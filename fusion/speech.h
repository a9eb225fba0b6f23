#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"

namespace tessera::fusion {

/// When the text of a window is taken for wrong, and what is tried then (Whisper's paper, section
/// 3.8, in the terms of HF's generate()). A window whose ids compress better than
/// `compression_ratio_threshold` (it repeats itself) or that is less likely than
/// `logprob_threshold` is decoded again at the next temperature; one that is unlikely while
/// <|nospeech|> is likelier than `no_speech_threshold` has no text.
struct Fallback {
  std::vector<double> temperatures;  ///< 0: greedily or by beams, above: drawn; empty: as sampling
                                     ///< options say, once
  std::optional<double> compression_ratio_threshold;
  std::optional<double> logprob_threshold;    ///< of the mean over the window's tokens
  std::optional<double> no_speech_threshold;  ///< counts only together with logprob_threshold

  /// Temperatures 0, 0.2, ... 1 with thresholds 1.35, -1 and 0.6, as the model cards recommend.
  static Fallback recommended();
  /// Throws ArgumentError that names a value out of its range.
  void validate() const;
};

/// The special tokens of a Whisper checkpoint (generation_config.json, config.json) and the rules
/// that go with them.
struct SpeechTokens {
  std::int32_t start = 0;  ///< <|startoftranscript|>
  std::int32_t end = 0;    ///< <|endoftext|>; text ids are below it
  std::int32_t no_timestamps = 0;
  std::int32_t timestamp_begin = 0;      ///< <|0.00|>; the next ones are 0.02 s apart
  std::optional<std::int32_t> previous;  ///< <|startofprev|>; where the files don't name it, HF's
                                         ///< guess: the last but one of suppress_tokens
  std::optional<std::int64_t> max_initial_timestamp_index;
  std::map<std::string, std::int32_t> languages;  ///< "<|en|>" -> id; empty: English only
  std::map<std::string, std::int32_t> tasks;      ///< "transcribe", "translate"
  std::vector<std::optional<std::int32_t>>
      forced;         ///< old forced_decoder_ids, in place; null: to be detected
  Fallback fallback;  ///< the thresholds of generation_config.json, where it has some
  bool condition_on_previous = false;  ///< condition_on_prev_tokens

  SpeechTokens(const Config& generation_config, const Config& config);

  /// "german", "de" or "<|de|>" -> its id. Throws ArgumentError naming what the checkpoint knows.
  std::int32_t language_id(const std::string& language) const;
  /// id -> "de".
  std::string language_code(std::int32_t id) const;
  /// Whether a language has to be detected when the caller names neither language nor task.
  bool needs_detection() const;

  /// <|startoftranscript|>, language, task, <|notimestamps|> as HF's generate() puts them together.
  /// `language`: what the caller named or what was detected. `task`: empty where the caller names
  /// none.
  std::vector<std::int32_t> start_sequence(std::optional<std::int32_t> language,
                                           bool language_named, const std::string& task,
                                           bool timestamps) const;
  /// HF's WhisperTimeStampLogitsProcessor: timestamps in pairs, never falling back, a first one
  /// early enough, and a timestamp where all of them together are likelier than any text.
  void apply_timestamp_rules(std::span<const std::int32_t> generated,
                             std::span<float> logits) const;
};

/// Seconds of a window of so many log-mel frames whose text has no closing timestamp: whole steps
/// of 0.02 s, with the rounding of HF's f32 arithmetic (30 frames give 0.28).
double untimed_length(std::int64_t frames);

/// Bytes of the ids, as many for each as a vocabulary of this size needs, over their size packed by
/// zlib (HF's _retrieve_compression_ratio): the higher, the more they repeat themselves.
double compression_ratio(std::span<const std::int32_t> ids, std::int64_t vocab_size);

/// "german" -> "de"; empty where unknown.
std::string language_code_of(const std::string& name);

}  // namespace tessera::fusion
