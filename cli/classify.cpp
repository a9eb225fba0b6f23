#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/timings.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> files, texts;
  std::int64_t top = 5;
};

using Labels = std::vector<fusion::Session::Label>;

Json to_json(const Labels& labels) {
  Json list = Json::array();
  for (const auto& label : labels) list.push_back({{"label", label.name}, {"score", label.score}});
  return list;
}

/// A line for each label; `name`, where there is one, before it.
void print_labels(const std::string& name, const Labels& labels) {
  for (const auto& label : labels) {
    char score[16];
    std::snprintf(score, sizeof score, "%.4f", label.score);
    print_line(concat(name, name.empty() ? "" : "\t", score, "\t", label.name));
  }
}

int run(const Options& o) {
  if (o.files.empty() == o.texts.empty())
    throw ArgumentError("give images, or texts with --text, to be classified");
  Stopwatch watch(o.common.timings);
  fusion::Session session(watch.time("open", [&] { return o.common.open(); }), o.common.context());
  watch.attach(session);
  const InterruptGuard guard(session);
  for (const std::string& text : o.texts) {
    fusion::Timings timings;
    const Labels labels = session.classify(text, o.top, &timings);
    if (o.common.json) {
      print_json({{"text", text}, {"labels", to_json(labels)}, {"timings", watch.json(timings)}});
    } else {
      print_labels(o.texts.size() > 1 ? text : "", labels);
    }
  }
  if (o.files.empty()) return kOk;
  const std::vector<std::string> files = expand_folders(o.files);
  const bool several = files.size() > 1 || files != o.files;
  return for_each_file(files, o.common.json, [&](const std::string& file) {
    const auto image = watch.time("load", [&] { return load_image(file); });
    fusion::Timings timings;
    const Labels labels = session.classify(image, o.top, &timings);
    if (o.common.json) {
      print_json({{"file", file},
                  {"text", labels.empty() ? "" : labels.front().name},
                  {"ids", Json::array()},
                  {"labels", to_json(labels)},
                  {"timings", watch.json(timings)}});
    } else {
      print_labels(several ? file : "", labels);
    }
    watch.report(file, timings);
  });
}

}  // namespace

Run add_classify(Command& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("classify", "Name what an image shows or what a text is, with scores");
  command.add_option("FILE", o->files, "Images, or folders of images; - is standard input")
      .type_name("");
  command.add_option("--text", o->texts, "A text, for a classifier of texts").one_each();
  command.add_option("--top", o->top, "Labels to print").positive().show_default();
  o->common.add_to(command, false);
  command.footer("Example:\n  tessera classify --model vit-base-patch16-224 --top 3 photo.jpg");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
