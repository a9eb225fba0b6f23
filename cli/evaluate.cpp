// evaluate: a model's answers, or somebody's, beside what is right.
#include <algorithm>
#include <cmath>
#include <map>

#include "audio/sound_stream.h"
#include "cli/evaluate_retrieval.h"
#include "cli/inputs.h"
#include "cli/options.h"
#include "core/error.h"
#include "core/output_file.h"
#include "fusion/example_loss.h"
#include "fusion/examples.h"
#include "fusion/transcribe.h"
#include "text/metrics.h"
#include "text/score.h"
#include "text/transcript_normalizer.h"

namespace tessera::cli {
namespace {

using fusion::Example;
using fusion::ExampleKind;

struct Options {
  CommonOptions common;
  SamplingFlags sampling;
  std::string file, output, normalizer = "auto", language, task;
  std::vector<std::string> metrics;
  std::int64_t limit = 0, context = 1024;
  bool fallback = false, confusion = false;
};

/// An example that has an answer.
struct Item {
  Example example;
  std::string answer;
  std::vector<float> log_probabilities;  // of an example that is a text alone
  Json scores = Json::object();
};

using Items = std::vector<Item>;
using Normalizer = std::function<std::string(const std::string&)>;
using Split = text::Words (*)(const std::string&);

// --- metrics ---

std::vector<text::Scored> scored(const Items& items, Split split) {
  std::vector<text::Scored> all;
  for (const Item& item : items) {
    all.push_back({split(item.answer), {}});
    for (const std::string& t : item.example.texts) all.back().references.push_back(split(t));
  }
  return all;
}

double error_rate(Items& items, const Normalizer& normalize, Split split, const char* name) {
  text::ErrorRate total;
  for (Item& item : items) {
    text::ErrorRate own;
    own.add(split(trim(normalize(item.example.texts.front()))),
            split(trim(normalize(item.answer))));
    total.edits += own.edits;
    total.units += own.units;
    if (own.units > 0) item.scores[name] = own.rate();
  }
  return total.rate();
}

/// The mean of one number an item.
double mean(Items& items, const std::vector<double>& values, const char* name) {
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    items[i].scores[name] = values[i];
    sum += values[i];
  }
  return sum / static_cast<double>(values.size());
}

double exact(Items& items, const Normalizer& normalize) {
  std::vector<double> values;
  for (const Item& item : items) {
    const std::string answer = trim(normalize(item.answer));
    values.push_back(std::ranges::any_of(
        item.example.texts, [&](const std::string& t) { return trim(normalize(t)) == answer; }));
  }
  return mean(items, values, "exact");
}

double perplexity(Items& items) {
  std::vector<float> all;
  for (Item& item : items) {
    all.insert(all.end(), item.log_probabilities.begin(), item.log_probabilities.end());
    item.scores["perplexity"] = text::perplexity(item.log_probabilities);
  }
  return text::perplexity(all);
}

text::Confusion confusion(const Items& items) {
  text::Confusion out;
  for (const Item& item : items) out.add(item.example.label, item.answer);
  return out;
}

double accuracy(Items& items) {
  std::vector<double> values;
  for (const Item& item : items) values.push_back(item.example.label == item.answer);
  return mean(items, values, "accuracy");
}

/// A score of a corpus. `scale`: what it is multiplied by for people; `unit` stands behind it.
struct Metric {
  double scale;
  const char* unit;
  std::function<double(Items&, const Normalizer&)> score;
};

const std::map<std::string, Metric>& metrics() {
  static const auto caption_bleu = [](std::size_t n) {
    return [n](Items& items, const Normalizer&) {
      return text::bleu(scored(items, text::split_caption))[n - 1];
    };
  };
  static const std::map<std::string, Metric> all = {
      {"wer",
       {100, " %",
        [](Items& items, const Normalizer& n) {
          return error_rate(items, n, text::split_words, "wer");
        }}},
      {"cer",
       {100, " %",
        [](Items& items, const Normalizer& n) {
          return error_rate(items, n, text::split_characters, "cer");
        }}},
      {"bleu",
       {1, "",
        [](Items& items, const Normalizer&) {
          return text::translation_bleu(scored(items, text::split_13a));
        }}},
      {"bleu-1", {100, "", caption_bleu(1)}},
      {"bleu-2", {100, "", caption_bleu(2)}},
      {"bleu-3", {100, "", caption_bleu(3)}},
      {"bleu-4", {100, "", caption_bleu(4)}},
      {"rouge-l",
       {100, "",
        [](Items& items, const Normalizer&) {
          return mean(items, text::rouge_l(scored(items, text::split_caption)), "rouge-l");
        }}},
      {"cider-d",
       {1, "",
        [](Items& items, const Normalizer&) {
          return mean(items, text::cider_d(scored(items, text::split_caption)), "cider-d");
        }}},
      {"exact", {100, " %", exact}},
      {"perplexity", {1, "", [](Items& items, const Normalizer&) { return perplexity(items); }}},
      {"accuracy", {100, " %", [](Items& items, const Normalizer&) { return accuracy(items); }}},
      {"macro-f1",
       {100, " %", [](Items& items, const Normalizer&) { return confusion(items).macro_f1(); }}},
  };
  return all;
}

bool has_labels(const fusion::Examples& examples) {
  return std::ranges::all_of(examples.list, [](const Example& e) { return !e.label.empty(); });
}

/// What can be said of such examples; the first `usual` of it is said when nobody asks.
std::vector<std::string> possible(const fusion::Examples& examples, std::size_t& usual) {
  const std::vector<std::string> texts = {"wer",    "cer",    "bleu",    "bleu-1",  "bleu-2",
                                          "bleu-3", "bleu-4", "rouge-l", "cider-d", "exact"};
  usual = texts.size();
  switch (examples.kind) {
    case ExampleKind::transcription:
      usual = 2;
      return texts;
    case ExampleKind::caption: {
      usual = 6;
      return {"bleu-1", "bleu-2", "bleu-3", "bleu-4", "rouge-l", "cider-d", "bleu", "wer", "exact"};
    }
    case ExampleKind::completion:
      usual = 3;
      return {"exact", "bleu", "rouge-l", "wer", "cer"};
    case ExampleKind::text:
    case ExampleKind::conversation:
      usual = 1;
      return {"perplexity"};
    case ExampleKind::classification:
      break;
    case ExampleKind::prediction:
      if (!has_labels(examples)) return texts;
  }
  usual = 2;
  return {"accuracy", "macro-f1"};
}

std::vector<std::string> chosen_metrics(const Options& o, const fusion::Examples& examples) {
  std::size_t usual = 0;
  std::vector<std::string> all = possible(examples, usual);
  if (o.metrics.empty()) {
    all.resize(usual);
    return all;
  }
  for (const std::string& name : o.metrics) {
    if (std::ranges::count(all, name)) continue;
    std::string known;
    for (const std::string& other : all) known += concat(known.empty() ? "" : ", ", other);
    throw ArgumentError(
        concat("metric \"", name, "\" does not fit these examples; one can have ", known));
  }
  return o.metrics;
}

// --- answers ---

/// Answers examples by a model.
class Answerer {
 public:
  Answerer(const Options& o, ExampleKind kind, std::shared_ptr<const fusion::Model> model)
      : o_(o), model_(std::move(model)), session_(model_, o.common.context()), guard_(session_) {
    // Of sound, --task says whether it is translated.
    const bool sound = kind == ExampleKind::transcription;
    task_ = sound || o.task.empty() ? fusion::task_of(kind) : o.task;
    sampling_ = sampling_for(task_);
  }

  const fusion::Model& model() const { return *model_; }
  const std::string& language() const { return language_; }

  /// False where the user interrupted.
  bool answer(ExampleKind kind, Item& item) {
    const Example& example = item.example;
    switch (kind) {
      case ExampleKind::transcription:
        // Whisper's way is for sound alone.
        return example.image.empty() ? transcribe(item) : generate(item);
      case ExampleKind::classification: {
        const auto best = example.image.empty()
                              ? session_.classify(example.texts.front(), 1).front()
                              : session_.classify(vision::load_image(example.image), 1).front();
        item.answer = example.label_is_index ? std::to_string(best.index) : best.name;
        break;
      }
      case ExampleKind::text: {
        if (!model().decoder)
          throw UnsupportedError(concat(model().path.string(), ": has no text decoder"));
        const auto ids =
            model().tokenizer->encode(example.texts.front(), {.add_special_tokens = true});
        item.log_probabilities =
            text::log_probabilities(session_.context(), *model().decoder, ids,
                                    std::min(o_.context, model().decoder->max_positions()));
        break;
      }
      case ExampleKind::conversation:
        score_answers(item);
        break;
      default:
        return generate(item);
    }
    return !session_.cancelled();
  }

  void open_chat_template() { chat_template_ = o_.common.chat_template(model()); }

  /// Throws FormatError where a label is none of the model's classes.
  void check_labels(const fusion::Examples& examples) const {
    if (model().labels().empty())
      throw UnsupportedError(concat(model().path.string(), ": has no classes to choose from"));
    const std::vector<std::string> labels = model().labels();
    for (const Example& e : examples.list) fusion::class_index(examples, e, labels, model().path);
  }

 private:
  text::SamplingOptions sampling_for(const std::string& task) const {
    text::SamplingOptions sampling = session_.defaults(task);
    o_.sampling.apply(sampling);
    return sampling;
  }
  /// Of a conversation, what the assistant wrote.
  void score_answers(Item& item) {
    if (!model().decoder)
      throw UnsupportedError(concat(model().path.string(), ": has no text decoder"));
    if (!item.example.media.empty()) return score_seen_answers(item);
    const auto [ids, answer, media] =
        fusion::encode_conversation(*model().tokenizer, *chat_template_, item.example);
    const auto all =
        text::log_probabilities(session_.context(), *model().decoder, ids,
                                std::min(o_.context, model().decoder->max_positions()));
    for (std::size_t i = 0; i < all.size(); ++i)
      if (answer[i + 1]) item.log_probabilities.push_back(all[i]);
  }
  /// The same with images and sounds: every token gets the mean.
  void score_seen_answers(Item& item) {
    fusion::Examples one{.file = o_.file, .kind = item.example.kind, .list = {item.example}};
    const fusion::ExampleLoss loss(model_, one, {.chat_template = chat_template_});
    const std::vector<std::int64_t> first = {0};
    const fusion::ExampleLoss::Sum sum = loss(session_.context(), first, 0);
    item.log_probabilities.assign(static_cast<std::size_t>(sum.count),
                                  -sum.loss.data()[0] / static_cast<float>(sum.count));
  }
  bool transcribe(Item& item) {
    fusion::TranscribeOptions options;
    options.language = o_.language;
    options.task = o_.task;
    options.sampling = sampling_;
    if (o_.fallback) options.fallback = fusion::Fallback::recommended();
    const auto sound = audio::open_sound(item.example.audio);
    const fusion::Transcript t = fusion::transcribe(session_, *sound, options);
    if (!sound->warning().empty())
      report(concat(item.example.audio.string(), ": ", sound->warning()));
    item.answer = t.text;
    language_ = t.language;
    return t.stop_reason != text::StopReason::cancelled;
  }

  bool generate(Item& item) {
    fusion::Prompt prompt;
    if (!item.example.image.empty()) prompt.emplace_back(vision::load_image(item.example.image));
    if (!item.example.audio.empty()) prompt.emplace_back(audio::load_sound(item.example.audio));
    if (!item.example.prompt.empty()) prompt.emplace_back(fusion::Text{item.example.prompt});
    const std::string& own = item.example.task;
    const fusion::Result result = own.empty() || own == task_
                                      ? session_.generate(prompt, {task_, sampling_})
                                      : session_.generate(prompt, {own, sampling_for(own)});
    item.answer = trim(result.text);
    return result.stop_reason != text::StopReason::cancelled;
  }

  const Options& o_;
  std::shared_ptr<const fusion::Model> model_;
  fusion::Session session_;
  InterruptGuard guard_;
  std::string task_, language_;
  text::SamplingOptions sampling_;
  std::optional<text::ChatTemplate> chat_template_;  // for conversations
};

/// What became of the examples.
struct Answers {
  Items items;
  std::int64_t failed = 0;
  bool interrupted = false;
  std::string language;
  std::filesystem::path model;
};

Answers given_answers(const Options& o, const std::vector<Example>& examples) {
  Answers out;
  out.model = o.common.model;  // for its normalizer.json
  for (const Example& e : examples) out.items.push_back({e, *e.prediction, {}, Json::object()});
  return out;
}

Answers model_answers(const Options& o, const fusion::Examples& all,
                      std::shared_ptr<const fusion::Model> model) {
  const ExampleKind kind = all.kind;
  const std::vector<Example>& examples = all.list;
  Answerer answerer(o, kind, model ? std::move(model) : o.common.open());
  if (kind == ExampleKind::classification) answerer.check_labels(all);
  if (kind == ExampleKind::conversation) answerer.open_chat_template();
  Answers out;
  Progress progress("evaluate", "examples", examples.size() > 1);
  for (std::size_t i = 0; i < examples.size() && !out.interrupted; ++i) {
    progress.show(static_cast<double>(i), static_cast<double>(examples.size()));
    Item item{examples[i], {}, {}, Json::object()};
    const std::string problem = problem_with(all, examples[i], [&] {
      out.interrupted = !answerer.answer(kind, item) || InterruptGuard::interrupted();
    });
    if (problem.empty()) {
      if (!out.interrupted) out.items.push_back(std::move(item));
      continue;
    }
    progress.clear();
    report(problem);
    ++out.failed;
  }
  progress.clear();
  out.language = answerer.language();
  out.model = answerer.model().path;
  return out;
}

// --- results ---

/// The name of the normaliser in force, and the normaliser.
std::pair<std::string, Normalizer> normalizer(const Options& o, ExampleKind kind,
                                              const Answers& answers) {
  std::string name = o.normalizer;
  if (name == "auto") {
    const bool sound = kind == ExampleKind::transcription;
    const bool english = answers.language.empty() || answers.language == "en";
    name = !sound ? "none" : english ? "english" : "basic";
  }
  if (name == "basic") return {name, text::normalize_transcript};
  if (name == "none") return {name, [](const std::string& t) { return t; }};
  if (answers.model.empty()) return {name, text::EnglishNormalizer()};
  return {name, text::EnglishNormalizer::of_checkpoint(answers.model)};
}

void write_items(OutputFile& out, const Items& items) {
  for (const Item& item : items) {
    const Example& e = item.example;
    Json line = {{"line", e.line}};
    if (!e.image.empty()) line["image"] = e.image.string();
    if (!e.audio.empty()) line["audio"] = e.audio.string();
    if (!e.prompt.empty()) line["prompt"] = e.prompt;
    if (!e.texts.empty()) line["text"] = e.texts;
    if (!e.label.empty()) line["label"] = e.label;
    if (item.log_probabilities.empty()) line["prediction"] = item.answer;
    line.update(item.scores);
    out.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  out.publish();
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

void print_confusion(const text::Confusion& c) {
  print_line("\ntruth\tgiven\tcount");
  for (const auto& [classes, count] : c.counts())
    print_line(concat(classes.first, "\t", classes.second, "\t", count));
}

Json to_json(const text::Confusion& c) {
  Json out = Json::array();
  for (const auto& [classes, count] : c.counts())
    out.push_back({{"truth", classes.first}, {"given", classes.second}, {"count", count}});
  return out;
}

void print_scores(const Options& o, const Answers& answers, const std::string& normalizer,
                  const std::vector<std::pair<std::string, double>>& scores) {
  if (o.common.json) {
    Json line = {{"file", o.file}, {"items", answers.items.size()}, {"failed", answers.failed}};
    for (const auto& [name, value] : scores)
      line["scores"][name] = std::isfinite(value) ? Json(value) : Json();
    line["normalizer"] = normalizer;
    if (o.confusion) line["confusion"] = to_json(confusion(answers.items));
    print_json(line);
    return;
  }
  const auto row = [](const std::string& name, const std::string& value) {
    print_row(name, value, 12);
  };
  row("examples", std::to_string(answers.items.size()));
  if (answers.failed > 0) row("failed", std::to_string(answers.failed));
  for (const auto& [name, value] : scores) {
    const Metric& metric = metrics().at(name);
    row(name, concat(fixed(value * metric.scale, 2), metric.unit));
  }
  if (normalizer != "none") row("normalizer", normalizer);
  if (o.confusion) print_confusion(confusion(answers.items));
}

/// Only the first `most`; 0: all.
void limit(fusion::Examples& examples, std::int64_t most) {
  if (most > 0 && most < std::ssize(examples.list))
    examples.list.resize(static_cast<std::size_t>(most));
}

int run(const Options& o) {
  fusion::Examples examples = fusion::read_examples(o.file);
  if (examples.mixed)
    throw ArgumentError(concat(o.file, ": examples of several kinds; score one kind at a time"));
  for (const fusion::Example& e : examples.list) {
    if (!e.prompts.empty())
      throw ArgumentError(concat(fusion::where(examples, e),
                                 ": a list of prompts is for training; score one a line"));
  }
  const std::vector<std::string> names = chosen_metrics(o, examples);
  std::shared_ptr<const fusion::Model> model;  // of photos with texts: what it is decides
  if (examples.kind == ExampleKind::caption) model = o.common.open();
  if (model && model->dual) {
    if (!o.metrics.empty())
      throw ArgumentError(concat(model->path.string(),
                                 ": brings images and texts into one space, and is scored by "
                                 "recall@1, 5, 10 and median ranks, without --metric"));
    examples = fusion::pairs_of(std::move(examples));
    limit(examples, o.limit);
    return evaluate_retrieval({o.file, o.output, o.common.context(), o.common.json}, model,
                              std::move(examples));
  }
  if (o.confusion && names.front() != "accuracy" && names.front() != "macro-f1")
    throw ArgumentError("--confusion is for examples with labels");
  limit(examples, o.limit);
  std::optional<OutputFile> output;  // now, so that a wrong name is not said hours later
  if (!o.output.empty()) output.emplace(o.output);
  const bool given = examples.kind == ExampleKind::prediction;
  Answers answers = given ? given_answers(o, examples.list) : model_answers(o, examples, model);
  if (answers.items.empty()) {
    report(concat(o.file, ": no example was answered"));
    return answers.interrupted ? kInterrupted : kFailed;
  }
  const auto [normalizer_name, normalize] = normalizer(o, examples.kind, answers);
  std::vector<std::pair<std::string, double>> scores;
  for (const std::string& name : names)
    scores.emplace_back(name, metrics().at(name).score(answers.items, normalize));
  if (output) write_items(*output, answers.items);
  if (answers.interrupted)
    report(concat("interrupted; scores of the first ", answers.items.size(), " examples:"));
  print_scores(o, answers, normalizer_name, scores);
  return answers.interrupted ? kInterrupted : answers.failed > 0 ? kFailed : kOk;
}

}  // namespace

Run add_evaluate(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("evaluate", "Score a model's answers, or given ones");
  command
      .add_option(
          "FILE", o->file,
          "JSON Lines: {\"audio\", \"text\"}, {\"image\", \"text\"}, {\"image\", "
          "\"label\"}, {\"prompt\", \"completion\"}, {\"messages\"} or {\"text\"} for a model, "
          "{\"prediction\", \"text\"} or {\"prediction\", \"label\"} without one")
      .required()
      .type_name("");
  command
      .add_option("--metric", o->metrics,
                  "A score (once for each): wer, cer, bleu, bleu-1 to bleu-4, rouge-l, cider-d, "
                  "exact, perplexity, accuracy, macro-f1 (default: what is usual for the examples)")
      .type_name("NAME")
      .one_each();
  command
      .add_option("--normalizer", o->normalizer,
                  "What is left out of texts before words are compared, as Whisper's normalisers "
                  "do (auto: english or basic for sound, else none)")
      .one_of({"auto", "english", "basic", "none"})
      .show_default();
  command.add_option("-o,--output", o->output, "Write every example with its answer and scores")
      .type_name("FILE");
  command.add_option("--limit", o->limit, "Only the first so many examples (0: all)")
      .non_negative()
      .show_default();
  command.add_flag("--confusion", o->confusion, "Print how often each class was taken for which");
  command.add_option("-l,--language", o->language, "Sound: spoken language (default: detected)");
  command.add_option("--task", o->task, "Sound: transcribe or translate; else a start sequence");
  command.add_flag("--fallback", o->fallback, "Sound: as `tessera transcribe --fallback`");
  command.add_option("--context", o->context, "Perplexity: most tokens seen before one")
      .range(2, 1 << 20)
      .show_default();
  o->common.add_to(command, true);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera evaluate speech.jsonl\n"
      "  tessera evaluate --model whisper-base --output answers.jsonl speech.jsonl\n"
      "  tessera evaluate --metric bleu translations.jsonl");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
