#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/context.h"

namespace tessera {

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// What was spent on something. Operations count a multiply-add as two; bytes are those of weights
/// (or keys and values) read.
struct Cost {
  std::int64_t calls = 0;
  double seconds = 0, operations = 0, bytes = 0;
  Cost& operator+=(const Cost& other);
};

/// Where the time of a context's calls goes: phases ("prefill"), and in them stages by kind of work
/// ("attention", or "linear 384 > 1536"). One for each Context, filled by its thread alone; see
/// Context::profile.
class Profile {
 public:
  struct Stage {
    std::string name;
    Cost cost;
  };
  struct Phase {
    std::string name;
    Cost cost;                  ///< its time; operations and bytes are the sums of the stages
    std::vector<Stage> stages;  ///< in order of first appearance
    /// Time in no stage.
    double rest() const;
  };
  const std::vector<Phase>& phases() const { return phases_; }
  void clear() { phases_.clear(); }
  /// Books a phase that was timed elsewhere.
  void add_phase(std::string_view name, double seconds) { phase(name).cost += {1, seconds, 0, 0}; }

 private:
  friend class PhaseScope;
  friend class StageScope;
  Phase& phase(std::string_view name);

  std::vector<Phase> phases_;
  std::string current_;        // phase; empty: none
  bool inside_stage_ = false;  // stages inside of a stage count as part of it
};

/// The time while it lives is a phase's. A phase inside of another one suspends it.
class PhaseScope {
 public:
  PhaseScope(Context& ctx, std::string_view name) : profile_(ctx.profile) {
    if (profile_) begin(name);
  }
  ~PhaseScope() {
    if (profile_) end();
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void begin(std::string_view name);
  void end();
  Profile* profile_;
  std::string outer_;
  Clock::time_point start_;
};

/// What a stage is going to do. A matrix product gives its sizes, too; they become part of the
/// name.
struct StageWork {
  double operations = 0, bytes = 0;
  std::int64_t in = 0, out = 0;
};

/// The time while it lives is a stage's; costs one comparison where nobody asked.
class StageScope {
 public:
  StageScope(Context& ctx, std::string_view name, const StageWork& work = {})
      : profile_(ctx.profile && !ctx.profile->inside_stage_ ? ctx.profile : nullptr) {
    if (profile_) begin(name, work);
  }
  ~StageScope() {
    if (profile_) end();
  }
  StageScope(const StageScope&) = delete;
  StageScope& operator=(const StageScope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void begin(std::string_view name, const StageWork& work);
  void end();
  Profile* profile_;
  std::string name_;
  StageWork work_;
  Clock::time_point start_;
};

}  // namespace tessera
