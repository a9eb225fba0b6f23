#include <algorithm>
#include <filesystem>

#include "cli/options.h"
#include "core/error.h"
#include "vision/image.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  SamplingFlags sampling;
  std::vector<std::string> files;
};

bool is_image_name(const std::filesystem::path& file) {
  static constexpr const char* kSuffixes[] = {".jpg", ".jpeg", ".png", ".webp",
                                              ".tif", ".tiff", ".bmp", ".gif"};
  std::string suffix = file.extension().string();
  std::ranges::transform(suffix, suffix.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::ranges::count(kSuffixes, suffix) > 0;
}

/// Folders become the images in them, sorted.
std::vector<std::string> expand(const std::vector<std::string>& given) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& name : given) {
    std::error_code error;
    if (!fs::is_directory(name, error)) {
      files.push_back(name);
      continue;
    }
    std::vector<std::string> found;
    for (fs::recursive_directory_iterator
             it(name, fs::directory_options::skip_permission_denied, error),
         end;
         !error && it != end; it.increment(error)) {
      if (it->is_regular_file(error) && is_image_name(it->path()))
        found.push_back(it->path().string());
    }
    if (error) throw IoError(concat(name, ": ", error.message()));
    if (found.empty())
      throw IoError(concat(name, ": this folder has no images (jpg, png, webp, tiff, bmp, gif)"));
    std::ranges::sort(found);
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

int run(const Options& o) {
  fusion::Session session(o.common.open(), o.common.context());
  const InterruptGuard guard(session);
  fusion::GenerateOptions generate{"caption", session.defaults("caption")};
  o.sampling.apply(*generate.sampling);
  const std::vector<std::string> files = expand(o.files);
  const bool several = files.size() > 1 || files != o.files;
  Progress progress("caption", "images", several);
  double done = 0;
  return for_each_file(files, o.common.json, [&](const std::string& file) {
    progress.show(done++, static_cast<double>(files.size()));
    const fusion::Result result = session.generate({vision::load_image(file)}, generate);
    progress.clear();
    if (result.stop_reason == text::StopReason::cancelled) return;
    if (o.common.json) {
      print_json(result_json(file, result));
    } else {
      for (const text::Generated& g : result.sequences)
        print_line(several ? concat(file, "\t", trim(g.text)) : trim(g.text));
    }
    if (o.common.timings) report_timings(file, result.timings);
  });
}

}  // namespace

Run add_caption(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("caption", "Say in a sentence what a photo shows");
  command->add_option("FILE", o->files, "Images, or folders of images")->required();
  o->common.add_to(*command, true);
  o->sampling.add_to(*command);
  command->footer(
      "Examples:\n  tessera caption photo.jpg\n  tessera caption --json holiday/ > captions.jsonl\n"
      "  tessera caption --model vit-gpt2-image-captioning --beam-size 4 photo.jpg");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
