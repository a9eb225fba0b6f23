#include "fusion/transcribe.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <utility>

#include "audio/streamed_log_mel.h"
#include "core/error.h"
#include "core/profile.h"
#include "fusion/pieces.h"
#include "text/score.h"

namespace tessera::fusion {
namespace {

/// Seconds between timestamp tokens; an encoder row stands for as much sound.
constexpr double kTimePrecision = 0.02;
/// Log-mel frames for each encoder row: the stride of the tower's convolutions.
constexpr std::int64_t kInputStride = 2;

/// Side by side, where nothing else is asked for: their rows are rounded as one by one.
constexpr std::int64_t kPieces = 8;

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

/// A sound whose length is known. One that fits into a window is read once for that, and kept.
class Measured {
 public:
  Measured(Session& session, audio::SoundStream& sound, const TranscribeHooks& hooks)
      : given_(sound) {
    const std::int64_t more = session.model().log_mel->samples_per_window() + 1;
    samples_.resize(static_cast<std::size_t>(more));
    std::int64_t total = sound.read(samples_.data(), more), got = total;
    if (total < more) {
      samples_.resize(static_cast<std::size_t>(total));
      kept_ = audio::open_samples(samples_);
    }
    while (got == more && !session.cancelled()) total += got = sound.read(samples_.data(), more);
    if (total == 0) throw ArgumentError("there is no sound: not one sample");
    seconds_ = seconds_of(total);
    if (hooks.on_start) hooks.on_start(seconds_);
    if (!kept_) sound.rewind();
  }

  double seconds() const { return seconds_; }
  /// From its start.
  audio::SoundStream& stream() { return kept_ ? *kept_ : given_; }

 private:
  audio::SoundStream& given_;
  std::vector<float> samples_;
  std::unique_ptr<audio::SoundStream> kept_;
  double seconds_ = 0;
};

/// Whisper's way through a sound, as HF's WhisperForConditionalGeneration.generate().
class Whisper {
 public:
  Whisper(Session& session, const TranscribeOptions& options, const TranscribeHooks& hooks)
      : session_(session),
        model_(session.model()),
        decoder_(model_.decoder_for("transcribe", options.adapter)),
        tokens_(*model_.speech),
        options_(options),
        hooks_(hooks),
        sampling_(options.sampling.value_or(session.defaults("transcribe"))),
        fallback_(options.fallback.value_or(tokens_.fallback)),
        condition_(options.condition_on_previous.value_or(tokens_.condition_on_previous)),
        conditioned_(condition_),
        frames_(model_.audio->frames()) {
    fallback_.validate();
    sampling_.average_log_probability = fallback_.logprob_threshold.has_value();
  }

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

  /// In pieces that don't see each other's text.
  Transcript run_in_pieces(audio::SoundStream& sound) {
    if (condition_)
      throw ArgumentError(
          "windows that are decoded side by side can't see the text before them: batch above 1 "
          "and condition_on_previous exclude each other");
    timestamps_ = options_.timestamps;
    Measured measured(session_, sound, hooks_);
    out_.seconds = measured.seconds();
    std::map<std::int64_t, Piece> pieces;
    PieceWork work;
    work.prepare = [&](const audio::Pieces::Piece& given, std::function<void(Result)> on_result) {
      return job(given, pieces[given.start], std::move(on_result));
    };
    work.take = [&](std::int64_t start, std::int64_t end, const Result& result) {
      take(pieces.extract(start).mapped(), end - start, result);
    };
    if (!decode_pieces(session_, measured.stream(), decoder_, options_.batch, work, out_.timings))
      out_.stop_reason = text::StopReason::cancelled;
    finish();
    return std::move(out_);
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

  /// Of the token that follows these [1, V].
  Tensor logits_after(std::span<const std::int32_t> ids, const Tensor& memory) {
    Context& ctx = session_.context();
    KvCache cache = decoder_.new_cache();
    decoder_.set_memory(ctx, memory, cache);
    return text::logits_after(ctx, decoder_, ids, cache);
  }

  std::int32_t detect_language(const Tensor& memory) {
    const std::int32_t start[] = {tokens_.start};
    const Tensor logits = logits_after(start, memory);
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
    const Ids& prompt = options_.prompt_ids;
    if (!conditioned_ || (prompt.empty() && out_.segments.empty())) return prompt;
    Ids ids;
    const auto append = [&](std::span<const std::int32_t> part) {
      const bool pair = part.size() > 2 && is_timestamp(part[part.size() - 2]);
      ids.insert(ids.end(), part.begin(), part.end() - (pair ? 1 : 0));
    };
    const bool marked = !prompt.empty() && tokens_.previous == prompt.front();
    append(std::span(prompt).subspan(marked ? 1 : 0));
    for (const Segment& segment : out_.segments) append(segment.ids);
    const auto most = static_cast<std::size_t>(most_before());
    if (ids.size() > most) ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(most));
    if (tokens_.previous) ids.insert(ids.begin(), *tokens_.previous);
    return ids;
  }

  /// How many tokens of what came before a window it may see.
  std::int64_t most_before() const { return decoder_.max_positions() / 2 - 1; }

  /// HF's _set_max_new_tokens_and_length: what stands before the text does not count in max_length.
  void lengthen(const Ids& prompt) {
    if (sampling_.max_length == 0 || sampling_.max_new_tokens > 0) return;
    const auto own = static_cast<std::int64_t>(prompt.size());
    sampling_.max_length =
        std::min(sampling_.max_length + std::min(most_before(), own), decoder_.max_positions());
  }

  text::GenerateJob job(const Window& window, const Tensor& memory,
                        std::function<void(Result)> on_result) {
    text::SamplingOptions sampling = sampling_;
    if (window.temperature) {
      sampling.do_sample = *window.temperature > 0;
      sampling.temperature = sampling.do_sample ? *window.temperature : 1;
      if (sampling.do_sample) sampling.num_beams = 1;
    }
    text::GenerateHooks hooks;
    if (timestamps_) {
      hooks.process_logits = [this](std::span<const std::int32_t> generated,
                                    std::span<float> logits) {
        tokens_.apply_timestamp_rules(generated, logits);
      };
    }
    const Tensor rows = decoder_.embed(session_.context(), window.prompt);
    return session_.job(decoder_, window.prompt, rows, memory, sampling, hooks,
                        std::move(on_result));
  }

  Result decode(const Window& window, const Tensor& memory) {
    return session_.run_one(
        decoder_, [&](auto on_result) { return job(window, memory, std::move(on_result)); });
  }

  /// Measures what the thresholds are about; true: try the next temperature.
  bool looks_wrong(Window& window, const Result& result, const Tensor& memory) {
    const Fallback& limits = fallback_;
    bool wrong = false;
    if (limits.compression_ratio_threshold) {
      Ids ids = window.ids;
      if (result.stop_reason == text::StopReason::end_of_text) ids.push_back(tokens_.end);
      window.compression_ratio = compression_ratio(ids, decoder_.vocab_size());
      wrong = *window.compression_ratio > *limits.compression_ratio_threshold;
    }
    if (!limits.logprob_threshold) return wrong;
    window.average_log_probability = result.sequences.front().average_log_probability;
    if (!(*window.average_log_probability < *limits.logprob_threshold)) return wrong;
    if (!limits.no_speech_threshold) return true;
    if (!window.no_speech_probability)
      window.no_speech_probability = no_speech_probability(window.prompt, memory);
    window.silent = *window.no_speech_probability > *limits.no_speech_threshold;
    return !window.silent;
  }

  /// softmax of <|nospeech|> right after <|startoftranscript|>.
  double no_speech_probability(const Ids& prompt, const Tensor& memory) {
    const std::size_t before = prompt.size() - start_.size() + 1;
    const Tensor logits = logits_after(std::span(prompt).first(before), memory);
    const std::int32_t no_speech = tokens_.no_timestamps - 1;
    if (no_speech < 0 || no_speech >= logits.numel()) {
      throw FormatError(concat(model_.path.string(), ": no_timestamps_token_id is ",
                               tokens_.no_timestamps, ", but the vocabulary has ", logits.numel(),
                               " tokens"));
    }
    return text::probability_of(logits, no_speech);
  }

  /// Decodes one window and appends its segments; returns how many frames are done.
  std::int64_t decode_window(const Frames& sound, std::int64_t seek, std::int64_t count) {
    Context& ctx = session_.context();
    const auto start = Clock::now();
    const Tensor memory = [&] {
      const PhaseScope phase(ctx, "encode");
      return model_.encode_frames(ctx, whole_window(ctx, sound.window(seek, count), frames_));
    }();
    Window window;
    window.seek = seek;
    window.prompt = previous_ids();
    const Ids own = start_ids(memory);
    window.prompt.insert(window.prompt.end(), own.begin(), own.end());
    lengthen(window.prompt);
    out_.timings.encode += seconds_since(start);

    set_temperature(window, 0);
    if (!settle(window, decode(window, memory), memory)) return 0;  // half a window is none
    conditioned_ = condition_ && window.temperature.value_or(0) < 0.5;
    out_.windows.push_back(window);
    return window.silent ? count : append_segments(window.ids, seek, count);
  }

  void set_temperature(Window& window, std::size_t attempt) const {
    if (!fallback_.temperatures.empty()) window.temperature = fallback_.temperatures[attempt];
  }

  /// Takes the first attempt, or, as long as what comes looks wrong, another one at the next
  /// temperature; false: cancelled.
  bool settle(Window& window, Result result, const Tensor& memory) {
    for (std::size_t attempt = 1;; ++attempt) {
      out_.timings += result.timings;
      out_.stop_reason = result.stop_reason;
      if (result.stop_reason == text::StopReason::cancelled) return false;
      window.ids = result.ids;
      if (!looks_wrong(window, result, memory) || attempt >= fallback_.temperatures.size())
        return true;
      set_temperature(window, attempt);
      result = decode(window, memory);
    }
  }

  /// One that is decoded beside others.
  struct Piece {
    Window window;
    Tensor memory;
  };

  text::GenerateJob job(const audio::Pieces::Piece& given, Piece& piece,
                        std::function<void(Result)> on_result) {
    Context& ctx = session_.context();
    const auto start = Clock::now();
    {
      const PhaseScope phase(ctx, "encode");
      piece.memory = model_.encode_frames(ctx, (*model_.log_mel)(ctx, given.samples));
    }
    const double encode = seconds_since(start);
    piece.window.seek = given.start / model_.log_mel->hop();
    piece.window.prompt = options_.prompt_ids;
    const Ids own = start_ids(piece.memory);
    piece.window.prompt.insert(piece.window.prompt.end(), own.begin(), own.end());
    if (given.start == 0) lengthen(piece.window.prompt);
    set_temperature(piece.window, 0);
    return job(piece.window, piece.memory, [encode, take = std::move(on_result)](Result result) {
      result.timings.encode = encode;
      take(std::move(result));
    });
  }

  void take(Piece piece, std::int64_t samples, const Result& result) {
    if (!settle(piece.window, result, piece.memory)) return;
    const std::int64_t seek = piece.window.seek;
    const std::int64_t count = std::max<std::int64_t>(1, samples / model_.log_mel->hop());
    out_.windows.push_back(std::move(piece.window));
    const Window& window = out_.windows.back();
    latest_ = std::min(seconds(seek + count), out_.seconds);
    if (!window.silent) {
      const std::int64_t done = append_segments(window.ids, seek, count);
      if (done < count) append_rest(window.ids, seek, count);
    }
    if (hooks_.on_progress) hooks_.on_progress(latest_, out_.seconds);
  }

  /// What follows the last pair of timestamps, where nobody decodes it again.
  void append_rest(const Ids& ids, std::int64_t seek, std::int64_t count) {
    const auto last =
        std::find_if(ids.rbegin(), ids.rend(), [this](auto id) { return is_timestamp(id); });
    const Ids rest(last.base() - 1, ids.end());
    if (rest.size() > 1) add_segment(seconds(seek) + time_of(*last), latest_, rest);
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
    start = std::min(start, latest_);
    end = std::min(end, latest_);
    Ids words;
    std::ranges::copy_if(ids, std::back_inserter(words),
                         [this](auto id) { return id < tokens_.end; });
    out_.segments.push_back(
        {start, end, model_.tokenizer->decode(words), ids, out_.windows.size() - 1});
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
  const text::LanguageModel& decoder_;
  const SpeechTokens& tokens_;
  const TranscribeOptions& options_;
  const TranscribeHooks& hooks_;
  text::SamplingOptions sampling_;
  Fallback fallback_;
  bool condition_, conditioned_;  // asked for; true of the next window
  std::int64_t frames_;
  bool timestamps_ = false;
  /// A piece's times go to its end: the model knows of silence behind it, up to a whole window.
  double latest_ = std::numeric_limits<double>::infinity();
  Ids start_;
  Transcript out_;
};

/// Checkpoints without Whisper's special tokens.
Transcript in_pieces(Session& session, audio::SoundStream& sound, const TranscribeOptions& options,
                     const TranscribeHooks& hooks) {
  if (!options.language.empty() || (!options.task.empty() && options.task != "transcribe")) {
    throw ArgumentError(concat(
        "this checkpoint has no choice of language or task; open a Whisper checkpoint for \"",
        options.language.empty() ? options.task : options.language, "\""));
  }
  Transcript out;
  Measured measured(session, sound, hooks);
  out.seconds = measured.seconds();
  const text::LanguageModel& decoder = session.model().decoder_for("transcribe", options.adapter);
  GenerateOptions generate{"transcribe", options.sampling, options.adapter};
  if (options.fallback) generate.no_speech_threshold = options.fallback->no_speech_threshold;
  PieceWork work;
  work.prepare = [&](const audio::Pieces::Piece& piece, std::function<void(Result)> on_result) {
    Prompt prompt;
    prompt.emplace_back(Sound{piece.samples, {}});
    return session.job(prompt, generate, {}, std::move(on_result));
  };
  work.take = [&](std::int64_t start, std::int64_t end, const Result& result) {
    out.timings += result.timings;
    out.stop_reason = result.stop_reason;
    Window& seen = out.windows.emplace_back();
    seen.seek = start / session.model().log_mel->hop();
    seen.ids = result.ids;
    seen.no_speech_probability = result.no_speech_probability;
    seen.silent = result.silent;
    if (!seen.silent) {
      out.segments.push_back(
          {seconds_of(start), seconds_of(end), result.text, result.ids, out.windows.size() - 1});
      out.ids.insert(out.ids.end(), result.ids.begin(), result.ids.end());
      out.text += result.text;
      if (hooks.on_segment) hooks.on_segment(out.segments.back());
    }
    if (hooks.on_progress) hooks.on_progress(seconds_of(end), out.seconds);
  };
  if (!decode_pieces(session, measured.stream(), decoder,
                     options.batch > 0 ? options.batch : kPieces, work, out.timings))
    out.stop_reason = text::StopReason::cancelled;
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
  if (!model.speech) return in_pieces(session, sound, options, hooks);
  Whisper whisper(session, options, hooks);
  return options.batch > 1 ? whisper.run_in_pieces(sound) : whisper.run(sound);
}

Result transcribe_sound(Session& session, const Sound& sound, const GenerateOptions& options,
                        const Session::OnText& on_text) {
  struct Stopped {};
  Result result;
  TranscribeOptions own;
  own.sampling = options.sampling;
  own.adapter = options.adapter;
  own.fallback.emplace().no_speech_threshold = options.no_speech_threshold;
  TranscribeHooks hooks;
  hooks.on_segment = [&](const Segment& s) {
    result.text += s.text;
    result.ids.insert(result.ids.end(), s.ids.begin(), s.ids.end());
    if (on_text && !on_text(s.text)) throw Stopped();
  };
  try {
    const Transcript t = in_pieces(session, *audio::open_samples(sound.samples), own, hooks);
    result.stop_reason = t.stop_reason;
    result.timings = t.timings;
    result.silent = std::ranges::all_of(t.windows, &Window::silent);
  } catch (const Stopped&) {
    result.stop_reason = text::StopReason::cancelled;
  }
  text::Generated& best = result.sequences.emplace_back();
  best.ids = result.ids;
  best.text = result.text;
  best.stop_reason = result.stop_reason;
  return result;
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
  const auto mark = model.speech ? model.tokenizer->id_of("<|startofprev|>") : std::nullopt;
  if (!mark) {
    throw ArgumentError(
        concat(model.path.string(), ": this checkpoint takes no text before the sound"));
  }
  Ids ids = model.tokenizer->encode(concat(" ", strip(text)));
  ids.insert(ids.begin(), *mark);
  return ids;
}

}  // namespace tessera::fusion
