#include "fusion/quantize.h"
#include "cli/options.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  std::string from, to, dtype = "int8", data, language;
  std::int64_t examples = 128;
  int threads = 0;
  bool own_texts = false, half = false, json = false;

  bool calibrates() const { return own_texts || !data.empty(); }
};

/// The bars of one after the other of the things that are done.
class Bars {
 public:
  explicit Bars(bool wanted) : wanted_(wanted) {}
  void show(const char* what, std::int64_t done, std::int64_t total) {
    if (!bar_ || what_ != what) {
      what_ = what;
      bar_.emplace(what_,
                   what_ == "round"   ? "matrices"
                   : what_ == "write" ? "texts"
                                      : "examples",
                   wanted_);
    }
    bar_->show(static_cast<double>(done), static_cast<double>(total));
  }
  void clear() { bar_.reset(); }

 private:
  bool wanted_;
  std::string what_;
  std::optional<Progress> bar_;
};

void print_report(const Options& o, const fusion::QuantizeReport& done) {
  if (o.json) {
    Json out = {{"file", o.to},
                {"eight_bits", done.eight_bits},
                {"four_bits", done.four_bits},
                {"bytes_before", done.bytes_before},
                {"bytes_after", done.bytes_after}};
    if (o.calibrates()) {
      out["calibrated"] = done.calibrated;
      out["examples"] = done.examples;
    }
    return print_json(out);
  }
  char sizes[64];
  std::snprintf(sizes, sizeof sizes, "%.1f MB instead of %.1f",
                static_cast<double>(done.bytes_after) / 1e6,
                static_cast<double>(done.bytes_before) / 1e6);
  print_line(concat(o.to, ": ", done.eight_bits, " matrices with 8 bits, ", done.four_bits,
                    " with 4; ", sizes));
  if (!o.calibrates()) return;
  print_line(concat(done.calibrated, " of them calibrated with ", done.examples, " examples"));
}

int run(const Options& o) {
  const InterruptGuard guard;
  Bars bars(!o.json);
  fusion::QuantizeOptions options;
  options.precision = o.dtype == "int4" ? Precision::int4 : Precision::int8;
  options.half = o.half;
  options.context.threads = o.threads;
  if (o.calibrates())
    options.calibration = {.data = o.data, .examples = o.examples, .language = o.language};
  options.on_progress = [&](const char* what, std::int64_t done, std::int64_t total) {
    bars.show(what, done, total);
    return !InterruptGuard::interrupted();
  };
  const auto done = fusion::quantize_checkpoint(o.from, o.to, options);
  bars.clear();
  if (done.cancelled) {
    report(concat("interrupted; ", o.to, " was not written"));
    return kInterrupted;
  }
  print_report(o, done);
  return kOk;
}

}  // namespace

Run add_quantize(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("quantize", "Save a checkpoint with smaller numbers");
  command.add_option("DIR", o->from, "Checkpoint directory").required().type_name("");
  command.add_option("OUT", o->to, "New directory for the result").required().type_name("");
  command
      .add_option(
          "--dtype", o->dtype,
          "int8, or int4 for decoders (towers, token tables, output layers and projections to "
          "values stay at int8)")
      .one_of({"int8", "int4"})
      .show_default();
  const Option data =
      command
          .add_option(
              "--calibration", o->data,
              "Run the model on this and round so that its layers' outputs change little "
              "(GPTQ): a text, JSON Lines of examples as for evaluate, or a folder of images "
              "or sounds")
          .type_name("FILE");
  command
      .add_flag("--self-calibration", o->own_texts,
                "The same on texts that the model writes itself, for want of data")
      .excludes(data);
  command
      .add_option("--calibration-examples", o->examples,
                  "Most examples of it, or pieces of text of up to 512 tokens; so many texts of "
                  "its own")
      .range(1, 1 << 20)
      .show_default();
  command.add_option("-l,--language", o->language,
                     "Of the transcripts in JSON Lines, where the model knows several");
  command.add_option("-t,--threads", o->threads, "Threads (0: one for each physical core)")
      .range(0, 1024)
      .show_default();
  command.add_flag("--half", o->half, "All other numbers as f16 (default: as they are)");
  command.add_flag("--json", o->json, "Print one JSON object");
  command.footer(
      "Examples:\n  tessera quantize --dtype int4 SmolLM2-135M SmolLM2-135M-int4\n"
      "  tessera quantize --dtype int4 --self-calibration SmolLM2-135M SmolLM2-135M-int4\n"
      "  tessera quantize --dtype int4 --calibration some.txt SmolLM2-135M SmolLM2-135M-int4");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
