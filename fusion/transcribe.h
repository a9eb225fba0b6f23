#pragma once
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audio/sound_stream.h"
#include "fusion/session.h"
#include "fusion/speech.h"

namespace tessera::fusion {

struct TranscribeOptions {
  std::string language;  ///< "german", "de"; empty: detected by multilingual checkpoints
  std::string task;  ///< "transcribe" or "translate" (to English); empty: what the checkpoint says
  bool timestamps = false;
  std::vector<std::int32_t>
      prompt_ids;  ///< <|startofprev|> and a text before the sound; empty: none
  /// Each window sees the text before it (but for text that needed a temperature of 0.5 or more).
  /// Empty: what the checkpoint says.
  std::optional<bool> condition_on_previous;
  std::optional<Fallback> fallback;               ///< empty: what the checkpoint says
  std::optional<text::SamplingOptions> sampling;  ///< empty: what the checkpoint says
  std::string adapter;                            ///< of OpenOptions::switchable; empty: none
  /// How many windows are decoded side by side; 0: one with Whisper checkpoints, else 8. Above 1, a
  /// Whisper checkpoint is several times as fast on long sound, which is cut at quiet places then
  /// instead of where the text before ended; no window sees that text, so words can differ a little
  /// from those of HF's generate().
  std::int64_t batch = 0;
};

struct Segment {
  double start = 0, end = 0;  ///< seconds
  std::string text;
  std::vector<std::int32_t> ids;
  std::size_t window = 0;  ///< which of Transcript::windows it is from
};

/// One window as the decoder saw it.
struct Window {
  std::int64_t seek = 0;  ///< its first frame of the log-mel
  std::vector<std::int32_t> prompt, ids;
  std::optional<double> temperature;  ///< what it was decoded at, where a Fallback names some
  /// What was measured for the thresholds in force.
  std::optional<double> compression_ratio, average_log_probability, no_speech_probability;
  bool silent = false;  ///< taken for silence: no segments
};

struct Transcript {
  double seconds = 0;  ///< of sound
  std::string text;
  std::string language;           ///< "en"; empty where the model does not say
  std::vector<std::int32_t> ids;  ///< of all windows, timestamps included where they were made
  std::vector<Segment> segments;  ///< with timestamps: as the model cut them; without: one a window
  std::vector<Window> windows;
  /// cancelled: the text ends with the last window that was decoded to its end.
  text::StopReason stop_reason = text::StopReason::end_of_text;
  Timings timings;
};

struct TranscribeHooks {
  /// The sound was read to its end once: so many seconds, and its warning() is known.
  std::function<void(double seconds)> on_start;
  std::function<void(const Segment&)> on_segment;              ///< as soon as it is final
  std::function<void(double done, double total)> on_progress;  ///< seconds of sound
};

/// Speech to text. Whisper checkpoints: exactly as HF's WhisperForConditionalGeneration.generate()
/// (sound of more than one window is decoded with timestamps, window by window, each starting where
/// the last finished segment ended), or in pieces (TranscribeOptions::batch). Others (`tessera`):
/// always in pieces, cut at quiet places, `batch` of them side by side. Throws
/// UnsupportedError where the model can't take sound, ArgumentError for languages and tasks it does
/// not know, or no sound at all. A stream is read twice; memory does not grow with its length.
Transcript transcribe(Session& session, audio::SoundStream& sound,
                      const TranscribeOptions& options = {}, const TranscribeHooks& hooks = {});
Transcript transcribe(Session& session, std::span<const float> samples,
                      const TranscribeOptions& options = {}, const TranscribeHooks& hooks = {});

/// The same of a checkpoint that is no Whisper, as the answer to a prompt of that sound.
Result transcribe_sound(Session& session, const Sound& sound, const GenerateOptions& options,
                        const Session::OnText& on_text);

/// The same for a Whisper checkpoint from a log-mel [frames, mels] of a whole sound.
Transcript transcribe_frames(Session& session, const Tensor& log_mel,
                             const TranscribeOptions& options = {},
                             const TranscribeHooks& hooks = {});

/// <|startofprev|> and the ids of `text`, for TranscribeOptions::prompt_ids (names and words to
/// expect). Throws ArgumentError for checkpoints without that token.
std::vector<std::int32_t> prompt_ids(const Model& model, const std::string& text);

}  // namespace tessera::fusion
