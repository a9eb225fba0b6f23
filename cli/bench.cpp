#include <cstdio>
#include <optional>

#include "cli/options.h"
#include "core/error.h"
#include "core/machine.h"
#include "core/version.h"
#include "fusion/benchmark.h"

namespace tessera::cli {
namespace {

struct Options {
  CommonOptions common;
  fusion::BenchmarkOptions bench;
  bool peaks_only = false;
};

Json peaks_json(const MachinePeaks& peaks) {
  Json out;
  for (const auto& a : peaks.arithmetic)
    out[a.format] = {{"gflops", a.gflops}, {"instruction", a.instruction}};
  out["read_gb_per_s"] = peaks.read_gb_per_s;
  return out;
}

std::string line_of(const char* format, auto... values) {
  char text[200];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

/// Rates of a cost, and which share of the machine's f32 and memory peaks they are.
struct Rates {
  double gflops, gb_per_s, compute_share, memory_share;
};

Rates rates_of(const Cost& cost, const MachinePeaks& peaks) {
  if (cost.seconds <= 0) return {};
  const double gflops = cost.operations / cost.seconds / 1e9;
  const double gb = cost.bytes / cost.seconds / 1e9;
  return {gflops, gb, 100 * gflops / peaks.gflops("f32"), 100 * gb / peaks.read_gb_per_s};
}

Json cost_json(const Cost& cost, int runs, const MachinePeaks& peaks) {
  const Rates r = rates_of(cost, peaks);
  return {{"calls", cost.calls / runs}, {"ms", 1e3 * cost.seconds / runs},
          {"gflops", r.gflops},         {"percent_of_f32_peak", r.compute_share},
          {"gb_per_s", r.gb_per_s},     {"percent_of_read_peak", r.memory_share}};
}

Json measurement_json(const fusion::Measurement& m, const MachinePeaks& peaks) {
  const int runs = static_cast<int>(m.seconds.size());
  Json out = {{"work", m.work},
              {"unit", m.unit},
              {"amount", m.amount},
              {"median_ms", 1e3 * m.median()},
              {"per_s", m.amount / m.median()}};
  out["mean"] = cost_json(m.stages.cost, runs, peaks);
  out["stages"] = Json::array();
  for (const auto& stage : m.stages.stages) {
    Json one = {{"stage", stage.name}};
    one.update(cost_json(stage.cost, runs, peaks));
    out["stages"].push_back(one);
  }
  return out;
}

std::string cost_line(const std::string& name, const Cost& cost, int runs,
                      const MachinePeaks& peaks) {
  std::string line = line_of("%-30s %7lld %10.3f", name.c_str(),
                             static_cast<long long>(cost.calls / runs), 1e3 * cost.seconds / runs);
  const Rates r = rates_of(cost, peaks);
  if (cost.operations > 0) line += line_of(" %9.1f %5.0f%%", r.gflops, r.compute_share);
  if (cost.bytes > 0) line += line_of(" %8.2f %5.0f%%", r.gb_per_s, r.memory_share);
  return line;
}

void print_measurement(const fusion::Measurement& m, const MachinePeaks& peaks) {
  const int runs = static_cast<int>(m.seconds.size());
  print_line(line_of("\n%s: %.2f ms (median of %d), %.1f %s/s", m.work.c_str(), 1e3 * m.median(),
                     runs, m.amount / m.median(), m.unit.c_str()));
  print_line(cost_line("all (mean)", m.stages.cost, runs, peaks));
  for (const auto& stage : m.stages.stages)
    print_line(cost_line("  " + stage.name, stage.cost, runs, peaks));
}

void print_peaks(const MachinePeaks& peaks, int threads) {
  print_line(concat(processor_name(), ", ", threads, " threads, ", kernel_name(), " kernels"));
  for (const auto& a : peaks.arithmetic) {
    print_line(line_of("peak %-5s %8.1f GFLOP/s   (%s)", a.format.c_str(), a.gflops,
                       a.instruction.c_str()));
  }
  print_line(line_of("memory     %8.2f GB/s      (reading)", peaks.read_gb_per_s));
}

int run(const Options& o) {
  Context ctx(o.common.context());
  const MachinePeaks peaks = measure_peaks(ctx);
  if (!o.common.json) print_peaks(peaks, ctx.threads());
  std::vector<fusion::Measurement> all;
  std::string path;
  if (!o.peaks_only) {
    const auto model = o.common.open();
    path = model->path.string();
    if (!o.common.json) {
      print_line(concat("model ", path, "\n\n",
                        line_of("%-30s %7s %10s %9s %6s %8s %6s", "stage", "calls", "ms", "GFLOP/s",
                                "peak", "GB/s", "peak")));
    }
    all = fusion::benchmark(ctx, *model, o.bench);
  }
  if (!o.common.json) {
    for (const auto& m : all) print_measurement(m, peaks);
    return kOk;
  }
  Json out = {{"version", kVersion},
              {"processor", processor_name()},
              {"threads", ctx.threads()},
              {"kernels", kernel_name()},
              {"peaks", peaks_json(peaks)}};
  if (!o.peaks_only) out["model"] = path;
  for (const auto& m : all) out["work"].push_back(measurement_json(m, peaks));
  print_json(out);
  return kOk;
}

}  // namespace

Run add_bench(Command& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("bench", "Measure this machine, and how near to its limits a model runs");
  command.add_option("--repeat", o->bench.repeat, "Runs of each kind of work; the median counts")
      .range(1, 1000)
      .show_default();
  command.add_option("--prefill", o->bench.prefill, "Tokens of the prompt")
      .positive()
      .show_default();
  command.add_option("--decode", o->bench.decode, "Tokens generated after it")
      .positive()
      .show_default();
  command.add_flag("--peaks", o->peaks_only, "Measure the machine alone");
  o->common.add_to(command, true);
  command.footer(
      "Peaks are those of f32 arithmetic and of reading memory, on all threads.\n"
      "Examples:\n  tessera bench\n  tessera bench --model whisper-tiny.en --repeat 9 --json\n"
      "  tessera bench --peaks");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
