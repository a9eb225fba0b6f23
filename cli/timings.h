#pragma once
#include <functional>
#include <string>

#include "cli/output.h"
#include "core/profile.h"
#include "fusion/session.h"

namespace tessera::cli {

/// Where a command's time goes, for --timings and --json: what is opened and loaded, and the stages
/// of each call. Stages are timed only where `wanted`.
class Stopwatch {
 public:
  explicit Stopwatch(bool wanted) : wanted_(wanted) {}
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// From here on, the session's calls are timed.
  void attach(fusion::Session& session);
  /// Runs work() as a phase of that name.
  template <class Work>
  auto time(const std::string& phase, Work work) {
    const auto start = std::chrono::steady_clock::now();
    auto result = work();
    profile_.add_phase(phase, seconds_since(start));
    return result;
  }
  /// What a call took (with its stages, where wanted) as JSON.
  Json json(const fusion::Timings& timings) const;
  /// Prints to standard error where wanted, and begins anew for the next call.
  void report(const std::string& what, const fusion::Timings& timings);

 private:
  bool wanted_;
  Profile profile_;
};

/// [{"phase", "seconds", "stages": [{"stage", "calls", "seconds", "gflops", "gb_per_s"}]}]
Json profile_json(const Profile& profile);
/// A table: a line for each phase, and one for each of its stages with calls, ms, share of the
/// phase, GFLOP/s and GB/s.
std::string profile_table(const Profile& profile);

}  // namespace tessera::cli
