#include <deque>
#include <exception>
#include <optional>

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
  std::int64_t batch = 8;
};

/// A photo under way, or waiting for those before it.
struct Photo {
  std::string file;
  std::optional<fusion::Result> result;
  std::string problem;
};

class Captions {
 public:
  explicit Captions(const Options& o)
      : o_(o),
        watch_(o.common.timings),
        session_(watch_.time("open", [&] { return o.common.open(); }), o.common.context()),
        files_(expand_folders(o.files)),
        several_(files_.size() > 1 || files_ != o.files),
        progress_("caption", "images", several_) {}

  int run() {
    watch_.attach(session_);
    const InterruptGuard guard(session_);
    fusion::GenerateOptions generate{"caption", session_.defaults("caption")};
    o_.sampling.apply(*generate.sampling);
    // Where the time of each photo is wanted, it has the machine for itself.
    const std::int64_t together = o_.common.timings ? 1 : o_.batch;
    session_.generate_all(generate, together, [&] { return next(); });
    progress_.clear();
    return InterruptGuard::interrupted() ? kInterrupted : code_;
  }

 private:
  std::optional<fusion::Session::Job> next() {
    while (at_ < files_.size() && !InterruptGuard::interrupted()) {
      progress_.show(static_cast<double>(at_), static_cast<double>(files_.size()));
      Photo& photo = photos_.emplace_back();
      photo.file = files_[at_++];
      fusion::Session::Job job;
      photo.problem = problem_with(photo.file, [&] {
        job.prompt.emplace_back(watch_.time("load", [&] { return load_image(photo.file); }));
      });
      if (!photo.problem.empty()) {
        show_finished();
        continue;
      }
      job.on_result = [this, &photo](fusion::Result result) {
        photo.result = std::move(result);
        show_finished();
      };
      job.on_error = [this, &photo](const std::exception_ptr& error) {
        photo.problem = problem_with(photo.file, [&] { std::rethrow_exception(error); });
        show_finished();
      };
      return job;
    }
    return std::nullopt;
  }

  /// In the order of the files.
  void show_finished() {
    for (; !photos_.empty(); photos_.pop_front()) {
      const Photo& first = photos_.front();
      if (!first.result && first.problem.empty()) return;
      progress_.clear();
      if (first.result) {
        show(first.file, *first.result);
      } else {
        report_problem(first.file, first.problem, o_.common.json);
        code_ = kFailed;
      }
    }
  }

  void show(const std::string& file, const fusion::Result& result) {
    if (result.stop_reason == text::StopReason::cancelled) return;
    if (o_.common.json) {
      Json line = result_json(file, result);
      line["timings"] = watch_.json(result.timings);
      print_json(line);
    } else {
      for (const text::Generated& g : result.sequences)
        print_line(several_ ? concat(file, "\t", trim(g.text)) : trim(g.text));
    }
    watch_.report(file, result.timings);
  }

  const Options& o_;
  Stopwatch watch_;
  fusion::Session session_;
  std::vector<std::string> files_;
  bool several_;
  Progress progress_;
  std::size_t at_ = 0;  // the next file
  std::deque<Photo> photos_;
  int code_ = kOk;
};

}  // namespace

Run add_caption(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("caption", "Say in a sentence what a photo shows");
  command.add_option("FILE", o->files, "Images, or folders of images; - is standard input")
      .required()
      .type_name("");
  command.add_option("--batch", o->batch, "Several photos: so many are captioned side by side")
      .range(1, 256)
      .show_default();
  o->common.add_to(command, true);
  o->sampling.add_to(command);
  command.footer(
      "Examples:\n  tessera caption photo.jpg\n  tessera caption --json holiday/ > captions.jsonl\n"
      "  tessera caption --model vit-gpt2-image-captioning --beam-size 4 photo.jpg");
  return [o] { return Captions(*o).run(); };
}

}  // namespace tessera::cli
