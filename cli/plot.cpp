// plot: the curves of training runs as a picture.
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "cli/canvas.h"
#include "cli/options.h"
#include "core/config.h"
#include "core/error.h"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> runs;
  std::string output;
  double smoothing = 0.9;
};

struct Point {
  double step, value;
};
using Curve = std::vector<Point>;

/// What log.jsonl of a run says.
struct Log {
  std::string name;
  Curve loss, smoothed, evaluation, rate;
};

constexpr std::array<Color, 6> kColors = {Color{31, 119, 180}, {214, 39, 40}, {44, 160, 44},
                                          {148, 103, 189},     {140, 86, 75}, {23, 190, 207}};
constexpr Color kInk{60, 60, 60}, kGrid{225, 225, 225};

Color lighter(Color c) {
  const auto part = [](std::uint8_t x) { return static_cast<std::uint8_t>(x + (255 - x) * 3 / 5); };
  return {part(c.red), part(c.green), part(c.blue)};
}

Log read_log(const std::string& run, double smoothing) {
  const fs::path file = fs::path(run) / "log.jsonl";
  std::ifstream in(file);
  if (!in) throw IoError(concat(file.string(), ": can't be read; give the folder of a run"));
  Log log;
  log.name = run;
  std::string text;
  double mean = 0, weight = 0;
  for (std::int64_t number = 1; std::getline(in, text); ++number) {
    if (text.empty()) continue;
    const Config line = Config::parse(text, concat(file.string(), ":", number));
    const auto step = static_cast<double>(line.integer("step"));
    const double loss = line.number("loss");
    // A moving average that does not begin at 0 (as Adam's).
    mean = smoothing * mean + (1 - smoothing) * loss;
    weight = smoothing * weight + (1 - smoothing);
    log.loss.push_back({step, loss});
    log.smoothed.push_back({step, mean / weight});
    if (line.has("evaluation")) log.evaluation.push_back({step, line.number("evaluation")});
    if (line.has("learning_rate")) log.rate.push_back({step, line.number("learning_rate")});
  }
  if (log.loss.empty()) throw FormatError(concat(file.string(), ": has no steps yet"));
  return log;
}

/// 1, 2 or 5 times a power of ten, so that about `count` of them make up the range.
double nice_distance(double range, int count) {
  const double rough = range / count, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

std::string label(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", std::abs(value) < 1e-12 ? 0.0 : value);
  return text;
}

/// Axes, and curves between them.
class Panel {
 public:
  Panel(Canvas& canvas, double top, double bottom, const std::vector<const Curve*>& curves,
        const std::string& title)
      : canvas_(canvas), top_(top), bottom_(bottom), right_(canvas.width() - 30) {
    for (const Curve* curve : curves) {
      for (const Point& p : *curve) {
        steps_ = std::max(steps_, p.step);
        low_ = std::min(low_, p.value);
        high_ = std::max(high_, p.value);
      }
    }
    if (!(high_ > low_)) high_ = low_ + std::max(1e-9, std::abs(low_));
    const double margin = 0.05 * (high_ - low_);
    low_ -= margin, high_ += margin;
    draw_axes(title);
  }

  void draw(const Curve& curve, Color color, double thickness) {
    for (std::size_t i = 1; i < curve.size(); ++i) {
      canvas_.line(x(curve[i - 1]), y(curve[i - 1]), x(curve[i]), y(curve[i]), color, thickness);
    }
    if (curve.size() == 1) mark(curve, color);
  }
  void mark(const Curve& curve, Color color) {
    for (const Point& p : curve) canvas_.disc(x(p), y(p), 4, color);
  }

 private:
  static constexpr double kLeft = 110;
  double x(const Point& p) const { return kLeft + (right_ - kLeft) * p.step / steps_; }
  double y(const Point& p) const {
    return bottom_ - (bottom_ - top_) * (p.value - low_) / (high_ - low_);
  }
  void draw_axes(const std::string& title) {
    const double up = nice_distance(high_ - low_, 5), along = nice_distance(steps_, 8);
    for (double v = std::ceil(low_ / up) * up; v <= high_; v += up) {
      canvas_.line(kLeft, y({0, v}), right_, y({0, v}), kGrid);
      canvas_.text(kLeft - 8 - Canvas::text_width(label(v)), y({0, v}) - 7, label(v), kInk);
    }
    for (double s = 0; s <= steps_; s += along) {
      canvas_.line(x({s, 0}), top_, x({s, 0}), bottom_, kGrid);
      canvas_.text(x({s, 0}) - Canvas::text_width(label(s)) / 2.0, bottom_ + 8, label(s), kInk);
    }
    canvas_.line(kLeft, top_, kLeft, bottom_, kInk);
    canvas_.line(kLeft, bottom_, right_, bottom_, kInk);
    canvas_.text(kLeft, top_ - 24, title, kInk);
  }

  Canvas& canvas_;
  double top_, bottom_, right_, steps_ = 1, low_ = std::numeric_limits<double>::infinity(),
                                high_ = -std::numeric_limits<double>::infinity();
};

int run(const Options& o) {
  std::vector<Log> logs;
  for (const std::string& name : o.runs) logs.push_back(read_log(name, o.smoothing));
  const auto all = [&](auto... members) {
    std::vector<const Curve*> curves;
    for (const Log& log : logs) (curves.push_back(&(log.*members)), ...);
    return curves;
  };
  constexpr int kHead = 30, kLine = 22;
  const int names = kHead + kLine * static_cast<int>(logs.size());
  Canvas canvas(1200, names + 780);
  const auto color = [](std::size_t i) { return kColors[i % kColors.size()]; };
  for (std::size_t i = 0; i < logs.size(); ++i) {
    const double y = 15 + kLine * static_cast<double>(i);
    canvas.line(110, y + 7, 150, y + 7, color(i), 3);
    canvas.text(160, y, logs[i].name, kInk);
  }
  Panel loss(canvas, names + 20, names + 460, all(&Log::smoothed, &Log::evaluation, &Log::loss),
             "loss: each step, their moving average, dots: held out");
  for (std::size_t i = 0; i < logs.size(); ++i) loss.draw(logs[i].loss, lighter(color(i)), 1);
  for (std::size_t i = 0; i < logs.size(); ++i) {
    loss.draw(logs[i].smoothed, color(i), 2.5);
    loss.draw(logs[i].evaluation, color(i), 1);
    loss.mark(logs[i].evaluation, color(i));
  }
  Panel rate(canvas, names + 550, names + 730, all(&Log::rate), "learning rate, by step");
  for (std::size_t i = 0; i < logs.size(); ++i) rate.draw(logs[i].rate, color(i), 2);
  const fs::path file =
      o.output.empty() ? fs::path(o.runs.front()) / "plot.png" : fs::path(o.output);
  canvas.save_png(file);
  print_line(file.string());
  return kOk;
}

}  // namespace

Run add_plot(Command& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("plot", "Draw the curves of training runs");
  command.add_option("RUN", o->runs, "Folders of runs").required().type_name("");
  command.add_option("-o,--output", o->output, "PNG file (default: plot.png in the first folder)")
      .type_name("FILE");
  command.add_option("--smoothing", o->smoothing, "Share of the past in the moving average")
      .range(0.0, 0.9999)
      .show_default();
  command.footer("Example:\n  tessera plot runs/first runs/second -o both.png");
  return [o] { return run(*o); };
}

}  // namespace tessera::cli
