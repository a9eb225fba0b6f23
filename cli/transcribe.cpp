#include "fusion/transcribe.h"

#include "audio/sound.h"
#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/timings.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  SamplingFlags sampling;
  std::vector<std::string> files;
  std::string language, task, prompt, pcm;
  std::int64_t rate = audio::kSampleRate, channels = 1, batch = 0;
  bool timestamps = false, condition = false, fallback = false;
  std::optional<double> compression_ratio_threshold, logprob_threshold, no_speech_threshold;
};

/// A sound and, where it came through standard input, its bytes.
struct Input {
  std::string bytes;
  std::unique_ptr<audio::SoundStream> sound;
};

Input open(const Options& o, const std::string& file) {
  const auto format = o.pcm == "s16le" ? audio::PcmFormat::s16le : audio::PcmFormat::f32le;
  Input input;
  if (file != "-") {
    input.sound =
        o.pcm.empty() ? audio::open_sound(file) : audio::open_pcm(file, format, o.rate, o.channels);
    return input;
  }
  input.bytes = read_stdin(kMostInput);
  const auto bytes = bytes_of(input.bytes);
  const std::string name = "standard input";
  input.sound = o.pcm.empty() ? audio::open_sound(bytes, name)
                              : audio::open_pcm(bytes, name, format, o.rate, o.channels);
  return input;
}

Json to_json(const std::string& file, const fusion::Transcript& t, const Stopwatch& watch) {
  Json segments = Json::array();
  for (const fusion::Segment& s : t.segments) {
    Json& segment = segments.emplace_back(
        Json{{"start", s.start}, {"end", s.end}, {"text", s.text}, {"ids", s.ids}});
    const fusion::Window& window = t.windows[s.window];
    const auto add = [&](const char* name, const std::optional<double>& value) {
      if (value) segment[name] = *value;
    };
    add("temperature", window.temperature);
    add("avg_logprob", window.average_log_probability);
    add("compression_ratio", window.compression_ratio);
    add("no_speech_prob", window.no_speech_probability);
  }
  return {{"file", file},
          {"text", t.text},
          {"ids", t.ids},
          {"language", t.language},
          {"segments", segments},
          {"duration", t.seconds},
          {"stop_reason", text::name_of(t.stop_reason)},
          {"timings", watch.json(t.timings)}};
}

std::string segment_line(const fusion::Segment& s) {
  return concat("[", clock_time(s.start), " --> ", clock_time(s.end), "] ", trim(s.text));
}

void transcribe_file(const Options& o, fusion::Session& session,
                     const fusion::TranscribeOptions& options, Stopwatch& watch,
                     const std::string& file) {
  const bool several = o.files.size() > 1;
  const Input input = watch.time("load", [&] { return open(o, file); });
  std::optional<Progress> progress;
  const bool lines = o.timestamps && !o.common.json;
  if (lines && several) print_line(concat(file, ":"));
  fusion::TranscribeHooks hooks;
  hooks.on_start = [&](double seconds) {
    const std::string warning = input.sound->warning();
    if (!warning.empty()) report(concat(file, ": ", warning));
    progress.emplace("transcribe", "s", seconds > 30);
    progress->show(0, seconds);
  };
  hooks.on_progress = [&](double done, double total) { progress->show(done, total); };
  if (lines) {
    hooks.on_segment = [&](const fusion::Segment& s) {
      progress->clear();
      print_line(segment_line(s));
    };
  }
  const fusion::Transcript t = fusion::transcribe(session, *input.sound, options, hooks);
  if (progress) progress->clear();
  if (t.stop_reason == text::StopReason::cancelled) {
    report(concat(file, ": interrupted; the text ends at ",
                  clock_time(t.segments.empty() ? 0 : t.segments.back().end)));
    if (t.segments.empty()) return;
  }
  if (o.common.json) {
    print_json(to_json(file, t, watch));
  } else if (!lines) {
    print_line(several ? concat(file, "\t", t.text) : t.text);
  }
  watch.report(file, t.timings);
}

/// What the checkpoint says, then --fallback, then single thresholds.
fusion::Fallback fallback(const Options& o, const fusion::Model& model) {
  fusion::Fallback out = model.speech ? model.speech->fallback : fusion::Fallback();
  if (o.fallback) {
    out = fusion::Fallback::recommended();
    std::erase_if(out.temperatures,
                  [&](double t) { return t <= o.sampling.temperature.value_or(-1); });
    if (o.sampling.temperature)
      out.temperatures.insert(out.temperatures.begin(), *o.sampling.temperature);
  }
  const auto set = [](std::optional<double>& to, const std::optional<double>& from) {
    if (from) to = from;
  };
  set(out.compression_ratio_threshold, o.compression_ratio_threshold);
  set(out.logprob_threshold, o.logprob_threshold);
  set(out.no_speech_threshold, o.no_speech_threshold);
  return out;
}

int run(const Options& o) {
  Stopwatch watch(o.common.timings);
  fusion::Session session(watch.time("open", [&] { return o.common.open(); }), o.common.context());
  watch.attach(session);
  const InterruptGuard guard(session);
  fusion::TranscribeOptions options;
  options.language = o.language;
  options.task = o.task;
  options.timestamps = o.timestamps;
  options.batch = o.batch;
  if (o.condition) options.condition_on_previous = true;
  options.fallback = fallback(o, session.model());
  if (!o.prompt.empty()) options.prompt_ids = fusion::prompt_ids(session.model(), o.prompt);
  options.sampling = session.defaults("transcribe");
  o.sampling.apply(*options.sampling);
  return for_each_file(o.files, o.common.json, [&](const std::string& file) {
    transcribe_file(o, session, options, watch, file);
  });
}

}  // namespace

Run add_transcribe(Command& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("transcribe", "Write down what is said in a recording or video");
  command.add_option("FILE", o->files, "Sound or video files; - is standard input")
      .required()
      .type_name("");
  command.add_option("-l,--language", o->language,
                     "Spoken language, as \"de\" or \"german\" (default: detected)");
  command.add_option("--task", o->task, "transcribe, or translate to English")
      .one_of({"transcribe", "translate"});
  command.add_flag("--timestamps", o->timestamps, "Print a line for each segment, with its times");
  command.add_option("--prompt", o->prompt, "Text before the sound: names and words to expect");
  command.add_flag("--condition-on-previous", o->condition,
                   "Let each window see the text before it");
  command
      .add_option(
          "--batch", o->batch,
          "Windows to decode side by side. Above 1, Whisper checkpoints are faster on long "
          "sound, but cut it at quiet places, and no window sees the text of the one before "
          "(default: 1 with Whisper, else 8)")
      .range(1, 64);
  const std::string wrong = "When a window's text looks wrong (the first three: Whisper)";
  command
      .add_flag(
          "--fallback", o->fallback,
          "Decode it again at temperatures 0.2, 0.4, ... 1, and leave silence out; thresholds "
          "1.35, -1 and 0.6 where not given")
      .group(wrong);
  command
      .add_option("--compression-ratio-threshold", o->compression_ratio_threshold,
                  "It repeats itself: its tokens compress better than this")
      .group(wrong);
  command
      .add_option("--logprob-threshold", o->logprob_threshold,
                  "It is unlikely: its mean log-probability is below this")
      .group(wrong);
  command
      .add_option(
          "--no-speech-threshold", o->no_speech_threshold,
          "It is silence: the probability of no speech is above this (default model: 0.6, 1 "
          "for never), and, Whisper, it is unlikely")
      .group(wrong);
  command.add_option("--pcm", o->pcm, "Files are raw samples of this format")
      .one_of({"s16le", "f32le"});
  command.add_option("--rate", o->rate, "Samples a second of --pcm")
      .range(1000, 768000)
      .show_default();
  command.add_option("--channels", o->channels, "Channels of --pcm").range(1, 64).show_default();
  o->common.add_to(command, true);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera transcribe speech.mp3\n  tessera transcribe --model whisper-base "
      "--language de "
      "--task translate --timestamps talk.mp4\n  arecord -f S16_LE -r 16000 -d 5 -t raw | tessera "
      "transcribe "
      "--pcm s16le -");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
