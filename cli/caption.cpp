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
};

int run(const Options& o) {
  Stopwatch watch(o.common.timings);
  fusion::Session session(watch.time("open", [&] { return o.common.open(); }), o.common.context());
  watch.attach(session);
  const InterruptGuard guard(session);
  fusion::GenerateOptions generate{"caption", session.defaults("caption")};
  o.sampling.apply(*generate.sampling);
  const std::vector<std::string> files = expand_folders(o.files);
  const bool several = files.size() > 1 || files != o.files;
  Progress progress("caption", "images", several);
  double done = 0;
  return for_each_file(files, o.common.json, [&](const std::string& file) {
    progress.show(done++, static_cast<double>(files.size()));
    fusion::Prompt prompt;
    prompt.emplace_back(watch.time("load", [&] { return load_image(file); }));
    const fusion::Result result = session.generate(prompt, generate);
    progress.clear();
    if (result.stop_reason == text::StopReason::cancelled) return;
    if (o.common.json) {
      Json line = result_json(file, result);
      line["timings"] = watch.json(result.timings);
      print_json(line);
    } else {
      for (const text::Generated& g : result.sequences)
        print_line(several ? concat(file, "\t", trim(g.text)) : trim(g.text));
    }
    watch.report(file, result.timings);
  });
}

}  // namespace

Run add_caption(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("caption", "Say in a sentence what a photo shows");
  command.add_option("FILE", o->files, "Images, or folders of images; - is standard input")
      .required()
      .type_name("");
  o->common.add_to(command, true);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera caption photo.jpg\n  tessera caption --json holiday/ > captions.jsonl\n"
      "  tessera caption --model vit-gpt2-image-captioning --beam-size 4 photo.jpg");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
