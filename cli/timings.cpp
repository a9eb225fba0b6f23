#include "cli/timings.h"

#include <cstdio>

#include "core/error.h"

namespace tessera::cli {
namespace {

double rate(double amount, double seconds) { return seconds > 0 ? amount / seconds / 1e9 : 0; }

Json seconds_json(const fusion::Timings& t) {
  return {{"encode_s", t.encode},
          {"prefill_s", t.prefill},
          {"decode_s", t.decode},
          {"prompt_tokens", t.prompt_tokens},
          {"new_tokens", t.new_tokens}};
}

std::string summary(const fusion::Timings& t) {
  const double speed = t.decode > 0 ? static_cast<double>(t.new_tokens) / t.decode : 0;
  char text[200];
  std::snprintf(
      text, sizeof text,
      "encode %.1f ms, prefill %.1f ms (%lld tokens), decode %.1f ms (%lld tokens, %.1f/s)",
      1e3 * t.encode, 1e3 * t.prefill, static_cast<long long>(t.prompt_tokens), 1e3 * t.decode,
      static_cast<long long>(t.new_tokens), speed);
  return text;
}

Json cost_json(const char* key, const std::string& name, const Cost& cost) {
  return {{key, name},
          {"calls", cost.calls},
          {"seconds", cost.seconds},
          {"gflops", rate(cost.operations, cost.seconds)},
          {"gb_per_s", rate(cost.bytes, cost.seconds)}};
}

std::string table_line(const std::string& name, const Cost& cost, double whole) {
  char text[160];
  int used = std::snprintf(text, sizeof text, "%-30s %8lld %10.2f %6.1f", name.c_str(),
                           static_cast<long long>(cost.calls), 1e3 * cost.seconds,
                           whole > 0 ? 100 * cost.seconds / whole : 0.0);
  if (cost.operations > 0) {
    std::snprintf(text + used, sizeof text - static_cast<std::size_t>(used), " %9.1f %7.2f",
                  rate(cost.operations, cost.seconds), rate(cost.bytes, cost.seconds));
  }
  return concat(text, "\n");
}

}  // namespace

void Stopwatch::attach(fusion::Session& session) {
  if (wanted_) session.context().profile = &profile_;
}

Json Stopwatch::json(const fusion::Timings& timings) const {
  Json out = seconds_json(timings);
  if (wanted_) out["phases"] = profile_json(profile_);
  return out;
}

void Stopwatch::report(const std::string& what, const fusion::Timings& timings) {
  if (wanted_) {
    cli::report(concat(what, ": ", summary(timings)));
    std::fputs(profile_table(profile_).c_str(), stderr);
  }
  profile_.clear();
}

Json profile_json(const Profile& profile) {
  Json all = Json::array();
  for (const Profile::Phase& phase : profile.phases()) {
    Json one = cost_json("phase", phase.name, phase.cost);
    one["stages"] = Json::array();
    for (const auto& stage : phase.stages)
      one["stages"].push_back(cost_json("stage", stage.name, stage.cost));
    if (!phase.stages.empty()) one["rest_s"] = phase.rest();
    all.push_back(std::move(one));
  }
  return all;
}

std::string profile_table(const Profile& profile) {
  char head[160];
  std::snprintf(head, sizeof head, "%-30s %8s %10s %6s %9s %7s\n", "stage", "calls", "ms", "%",
                "GFLOP/s", "GB/s");
  std::string text = head;
  for (const Profile::Phase& phase : profile.phases()) {
    const double whole = phase.cost.seconds;
    text += table_line(phase.name, phase.cost, whole);
    for (const auto& stage : phase.stages) text += table_line("  " + stage.name, stage.cost, whole);
    if (!phase.stages.empty()) text += table_line("  (rest)", {1, phase.rest(), 0, 0}, whole);
  }
  return text;
}

}  // namespace tessera::cli
