#include "fusion/quantize.h"
#include "cli/options.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

struct Options {
  std::string from, to, dtype = "int8";
  bool half = false, json = false;
};

int run(const Options& o) {
  const auto done = fusion::quantize_checkpoint(
      o.from, o.to, o.dtype == "int4" ? Precision::int4 : Precision::int8, o.half);
  if (o.json) {
    print_json({{"file", o.to},
                {"eight_bits", done.eight_bits},
                {"four_bits", done.four_bits},
                {"bytes_before", done.bytes_before},
                {"bytes_after", done.bytes_after}});
    return kOk;
  }
  char sizes[64];
  std::snprintf(sizes, sizeof sizes, "%.1f MB instead of %.1f",
                static_cast<double>(done.bytes_after) / 1e6,
                static_cast<double>(done.bytes_before) / 1e6);
  print_line(concat(o.to, ": ", done.eight_bits, " matrices with 8 bits, ", done.four_bits,
                    " with 4; ", sizes));
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
          "int8, or int4 for decoders (towers, token tables and output layers stay at int8)")
      .one_of({"int8", "int4"})
      .show_default();
  command.add_flag("--half", o->half, "All other numbers as f16 (default: as they are)");
  command.add_flag("--json", o->json, "Print one JSON object");
  command.footer("Example:\n  tessera quantize --dtype int4 SmolLM2-135M SmolLM2-135M-int4");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
