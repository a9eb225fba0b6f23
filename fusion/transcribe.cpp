#include "fusion/transcribe.h"

#include <algorithm>
#include <chrono>

#include "audio/streamed_log_mel.h"
#include "core/error.h"
#include "core/profile.h"

namespace tessera::fusion {
namespace {

/// Seconds between timestamp tokens; an encoder row stands for as much sound.
constexpr double kTimePrecision = 0.02;
/// Log-mel frames for each encoder row: the stride of the tower's convolutions.
constexpr std::int64_t kInputStride = 2;

using Ids = std::vector<std::int32_t>;
using Clock = std::chrono::steady_clock;

double seconds_of(std::int64_t samples) {
  return static_cast<double>(samples) / audio::kSampleRate;
}

/// A sound's log-mel: its length, and window(seek, n) -> frames [seek, seek + n) [n, mels].
struct Frames {
  std::int64_t count;
  double seconds;
  std::function<Tensor(std::int64_t seek, std::int64_t n)> window;
};

/// Filled up with zeros to `frames`.
Tensor whole_window(Context& ctx, const Tensor& mel, std::int64_t frames) {
  if (mel.dim(0) == frames) return mel;
  Tensor window = ctx.empty({frames, mel.dim(1)});
  float* end = std::copy_n(mel.data(), mel.numel(), window.data());
  std::fill(end, window.data() + window.numel(), 0.0f);
  return window;
}

std::string strip(const std::string& text) {
  const auto first = text.find_first_not_of(" \n\t");
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(" \n\t") - first + 1);
}

/// Whisper's way through a sound, as HF's WhisperForConditionalGeneration.generate().
class Whisper {
 public:
  Whisper(Session& session, const TranscribeOptions& options, const TranscribeHooks& hooks)
      : session_(session),
        model_(session.model()),
        tokens_(*model_.speech),
        options_(options),
        hooks_(hooks),
        sampling_(options.sampling.value_or(session.defaults("transcribe"))),
        frames_(model_.audio->frames()) {}

  Transcript run(audio::SoundStream& sound) {
    Context& ctx = session_.context();
    const auto start = Clock::now();
    audio::StreamedLogMel log_mel(*model_.log_mel, sound);
    const bool heard = [&] {
      const PhaseScope phase(ctx, "listen");
      while (log_mel.listen(ctx)) {
        if (session_.cancelled()) return false;
      }
      return true;
    }();
    out_.timings.encode = seconds_since(start);
    if (!heard) {
      out_.stop_reason = text::StopReason::cancelled;
      return std::move(out_);
    }
    return run(Frames{log_mel.frames(), log_mel.seconds(),
                      [&](auto seek, auto n) { return log_mel.window(ctx, seek, n); }});
  }

  Transcript run(const Frames& sound) {
    timestamps_ = options_.timestamps || sound.count > frames_;
    out_.seconds = sound.seconds;
    if (hooks_.on_start) hooks_.on_start(sound.seconds);
    std::int64_t seek = 0;
    while (seek < sound.count && out_.stop_reason != text::StopReason::cancelled) {
      const std::int64_t done = decode_window(sound, seek, std::min(frames_, sound.count - seek));
      seek += done;
      if (done > 0 && hooks_.on_progress)
        hooks_.on_progress(std::min(seconds(seek), out_.seconds), out_.seconds);
    }
    finish();
    return std::move(out_);
  }

 private:
  Ids start_ids(const Tensor& memory) {
    if (!start_.empty()) return start_;
    std::optional<std::int32_t> language;
    const bool named = !options_.language.empty();
    if (named) {
      language = tokens_.language_id(options_.language);
    } else if (!tokens_.languages.empty() &&
               (!options_.task.empty() || tokens_.needs_detection())) {
      language = detect_language(memory);
    }
    start_ = tokens_.start_sequence(language, named, options_.task, timestamps_);
    out_.language = tokens_.languages.empty() ? "en"
                    : start_.size() > 1       ? tokens_.language_code(start_[1])
                                              : "";
    return start_;
  }

  std::int32_t detect_language(const Tensor& memory) {
    Context& ctx = session_.context();
    KvCache cache = model_.decoder->new_cache();
    model_.decoder->set_memory(ctx, memory, cache);
    const std::int32_t start[] = {tokens_.start};
    const text::Sequence sequence{&cache, 1};
    const Tensor logits = model_.decoder->logits(
        ctx,
        model_.decoder->forward(ctx, model_.decoder->embed(ctx, start), std::span(&sequence, 1)));
    std::int32_t best = tokens_.languages.begin()->second;
    for (const auto& [name, id] : tokens_.languages) {
      const float a = logits.data()[id], b = logits.data()[best];
      if (a > b || (a == b && id < best)) best = id;
    }
    return best;
  }

  /// What stands before the start sequence: the caller's prompt, or, conditioned, the newest ids so
  /// far (the second of two closing timestamps left out of each segment) after <|startofprev|>.
  Ids previous_ids() const {
    if (!options_.condition_on_previous || out_.segments.empty() || !tokens_.previous)
      return options_.prompt_ids;
    Ids ids;
    if (!options_.prompt_ids.empty())
      ids.assign(options_.prompt_ids.begin() + 1, options_.prompt_ids.end());
    for (const Segment& segment : out_.segments) {
      const std::size_t n = segment.ids.size();
      const bool pair = n > 2 && is_timestamp(segment.ids[n - 2]);
      ids.insert(ids.end(), segment.ids.begin(), segment.ids.end() - (pair ? 1 : 0));
    }
    const auto most = static_cast<std::size_t>(model_.decoder->max_positions() / 2 - 1);
    if (ids.size() > most) ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(most));
    ids.insert(ids.begin(), *tokens_.previous);
    return ids;
  }

  /// Decodes one window and appends its segments; returns how many frames are done.
  std::int64_t decode_window(const Frames& sound, std::int64_t seek, std::int64_t count) {
    Context& ctx = session_.context();
    const auto start = Clock::now();
    const Tensor memory = [&] {
      const PhaseScope phase(ctx, "encode");
      return model_.encode_frames(ctx, whole_window(ctx, sound.window(seek, count), frames_));
    }();
    Ids prompt = previous_ids();
    const Ids own = start_ids(memory);
    prompt.insert(prompt.end(), own.begin(), own.end());
    out_.timings.encode += seconds_since(start);

    text::GenerateHooks hooks;
    if (timestamps_) {
      hooks.process_logits = [this](std::span<const std::int32_t> generated,
                                    std::span<float> logits) {
        tokens_.apply_timestamp_rules(generated, logits);
      };
    }
    const Result result = session_.generate_from(prompt, model_.decoder->embed(ctx, prompt), memory,
                                                 sampling_, hooks);
    out_.timings += result.timings;
    out_.stop_reason = result.stop_reason;
    if (result.stop_reason == text::StopReason::cancelled) return 0;  // half a window is no segment
    out_.windows.push_back({seek, prompt, result.ids});
    return append_segments(result.ids, seek, count);
  }

  double seconds(std::int64_t seek) const {
    return static_cast<double>(seek) * kTimePrecision / kInputStride;
  }
  bool is_timestamp(std::int32_t id) const { return id >= tokens_.timestamp_begin; }
  double time_of(std::int32_t id) const {
    return static_cast<double>(id - tokens_.timestamp_begin) * kTimePrecision;
  }

  /// Cuts a window's ids at each pair of timestamps (HF's _retrieve_segment); returns how many
  /// frames they cover.
  std::int64_t append_segments(const Ids& ids, std::int64_t seek, std::int64_t count) {
    const double offset = seconds(seek);
    const std::size_t n = ids.size();
    std::vector<std::size_t> cuts;
    for (std::size_t i = 0; i + 1 < n; ++i) {
      if (is_timestamp(ids[i]) && is_timestamp(ids[i + 1])) cuts.push_back(i + 1);
    }
    if (cuts.empty()) {
      double length = timestamps_ ? untimed_length(count) : seconds(count);
      const auto last =
          std::find_if(ids.rbegin(), ids.rend(), [this](auto id) { return is_timestamp(id); });
      if (last != ids.rend() && *last != tokens_.timestamp_begin) length = time_of(*last);
      add_segment(offset, timestamps_ ? offset + length : std::min(offset + length, out_.seconds),
                  ids);
      return count;
    }
    const bool single_ending = n >= 2 && is_timestamp(ids[n - 1]) && !is_timestamp(ids[n - 2]);
    if (single_ending) {
      cuts.push_back(n);
    } else {
      ++cuts.back();  // the last pair stays whole, to show that more was to come
    }
    std::size_t begin = 0;
    for (const std::size_t end : cuts) {
      const bool whole_pair = end == cuts.back() && !single_ending;
      const Ids part(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                     ids.begin() + static_cast<std::ptrdiff_t>(end));
      const std::int32_t closing =
          part[part.size() - (whole_pair ? std::min<std::size_t>(2, part.size()) : 1)];
      add_segment(offset + time_of(part.front()), offset + time_of(closing), part);
      begin = end;
    }
    if (single_ending) return count;  // no speech after the last timestamp
    // What follows the last pair is decoded again, from where that pair stands. A pair at 0 would
    // stay in place.
    const std::int64_t covered = (ids[begin - 2] - tokens_.timestamp_begin) * kInputStride;
    return covered > 0 ? covered : count;
  }

  void add_segment(double start, double end, const Ids& ids) {
    Ids words;
    std::ranges::copy_if(ids, std::back_inserter(words),
                         [this](auto id) { return id < tokens_.end; });
    out_.segments.push_back({start, end, model_.tokenizer->decode(words), ids});
    if (hooks_.on_segment) hooks_.on_segment(out_.segments.back());
  }

  void finish() {
    Ids words;
    for (const Segment& segment : out_.segments) {
      out_.ids.insert(out_.ids.end(), segment.ids.begin(), segment.ids.end());
      std::ranges::copy_if(segment.ids, std::back_inserter(words),
                           [this](auto id) { return id < tokens_.end; });
    }
    out_.text = strip(model_.tokenizer->decode(words));
  }

  Session& session_;
  const Model& model_;
  const SpeechTokens& tokens_;
  const TranscribeOptions& options_;
  const TranscribeHooks& hooks_;
  text::SamplingOptions sampling_;
  std::int64_t frames_;
  bool timestamps_ = false;
  Ids start_;
  Transcript out_;
};

/// Checkpoints without Whisper's special tokens: one window after the other.
Transcript window_by_window(Session& session, audio::SoundStream& sound,
                            const TranscribeOptions& options, const TranscribeHooks& hooks) {
  if (!options.language.empty() || (!options.task.empty() && options.task != "transcribe")) {
    throw ArgumentError(concat(
        "this checkpoint has no choice of language or task; open a Whisper checkpoint for \"",
        options.language.empty() ? options.task : options.language, "\""));
  }
  Transcript out;
  const std::int64_t window = session.model().log_mel->samples_per_window();
  std::vector<float> samples(static_cast<std::size_t>(window));
  std::int64_t total = 0, got = window;
  while (got == window && !session.cancelled()) total += got = sound.read(samples.data(), window);
  if (total == 0) throw ArgumentError("there is no sound: not one sample");
  out.seconds = seconds_of(total);
  if (hooks.on_start) hooks.on_start(out.seconds);
  if (total > window) sound.rewind();  // else it is here already
  for (std::int64_t at = 0; at < total; at += window) {
    samples.resize(static_cast<std::size_t>(std::min(window, total - at)));
    const auto piece = static_cast<std::int64_t>(samples.size());
    if (total > window && sound.read(samples.data(), piece) < piece)
      throw IoError(
          concat("the sound became shorter while it was read: it had ", out.seconds, " s"));
    Prompt prompt;
    prompt.emplace_back(Sound{samples, {}});
    const Result result = session.generate(prompt, {"transcribe", options.sampling});
    out.timings += result.timings;
    out.stop_reason = result.stop_reason;
    if (result.stop_reason == text::StopReason::cancelled) break;
    const double start = seconds_of(at), end = seconds_of(at + piece);
    out.windows.push_back({at / session.model().log_mel->hop(), {}, result.ids});
    out.segments.push_back({start, end, result.text, result.ids});
    out.ids.insert(out.ids.end(), result.ids.begin(), result.ids.end());
    out.text += result.text;
    if (hooks.on_segment) hooks.on_segment(out.segments.back());
    if (hooks.on_progress) hooks.on_progress(end, out.seconds);
  }
  out.text = strip(out.text);
  return out;
}

}  // namespace

Transcript transcribe(Session& session, audio::SoundStream& sound, const TranscribeOptions& options,
                      const TranscribeHooks& hooks) {
  const Model& model = session.model();
  if (!model.audio || !model.log_mel || !model.decoder) {
    throw UnsupportedError(
        concat(model.path.string(), ": this checkpoint has no sound tower and can't transcribe"));
  }
  if (model.speech) return Whisper(session, options, hooks).run(sound);
  return window_by_window(session, sound, options, hooks);
}

Transcript transcribe(Session& session, std::span<const float> samples,
                      const TranscribeOptions& options, const TranscribeHooks& hooks) {
  return transcribe(session, *audio::open_samples(samples), options, hooks);
}

Transcript transcribe_frames(Session& session, const Tensor& log_mel,
                             const TranscribeOptions& options, const TranscribeHooks& hooks) {
  if (!session.model().speech) {
    throw UnsupportedError(
        concat(session.model().path.string(), ": only Whisper checkpoints transcribe a log-mel"));
  }
  const double total = static_cast<double>(log_mel.dim(0)) * kTimePrecision / kInputStride;
  return Whisper(session, options, hooks).run(Frames{log_mel.dim(0), total, [&](auto seek, auto n) {
                                                       return log_mel.slice(seek, seek + n);
                                                     }});
}

std::vector<std::int32_t> prompt_ids(const Model& model, const std::string& text) {
  if (!model.speech || !model.speech->previous) {
    throw ArgumentError(
        concat(model.path.string(), ": this checkpoint takes no text before the sound"));
  }
  Ids ids = model.tokenizer->encode(concat(" ", strip(text)));
  ids.insert(ids.begin(), *model.speech->previous);
  return ids;
}

}  // namespace tessera::fusion
