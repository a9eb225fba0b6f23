#include "cli/inputs.h"
#include "cli/options.h"
#include "cli/timings.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> files;
  std::int64_t top = 5;
};

int run(const Options& o) {
  Stopwatch watch(o.common.timings);
  fusion::Session session(watch.time("open", [&] { return o.common.open(); }), o.common.context());
  watch.attach(session);
  const InterruptGuard guard(session);
  const std::vector<std::string> files = expand_folders(o.files);
  const bool several = files.size() > 1 || files != o.files;
  return for_each_file(files, o.common.json, [&](const std::string& file) {
    const auto image = watch.time("load", [&] { return load_image(file); });
    fusion::Timings timings;
    const auto labels = session.classify(image, o.top, &timings);
    Json list = Json::array();
    for (const auto& label : labels) {
      list.push_back({{"label", label.name}, {"score", label.score}});
      char score[16];
      std::snprintf(score, sizeof score, "%.4f", label.score);
      if (!o.common.json) {
        print_line(several ? concat(file, "\t", score, "\t", label.name)
                           : concat(score, "\t", label.name));
      }
    }
    if (o.common.json) {
      print_json({{"file", file},
                  {"text", labels.empty() ? "" : labels.front().name},
                  {"ids", Json::array()},
                  {"labels", list},
                  {"timings", watch.json(timings)}});
    }
    watch.report(file, timings);
  });
}

}  // namespace

Run add_classify(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("classify", "Name what an image shows, with scores");
  command.add_option("FILE", o->files, "Images, or folders of images; - is standard input")
      .required()
      .type_name("");
  command.add_option("--top", o->top, "Labels to print").positive().show_default();
  o->common.add_to(command, false);
  command.footer("Example:\n  tessera classify --model vit-base-patch16-224 --top 3 photo.jpg");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
