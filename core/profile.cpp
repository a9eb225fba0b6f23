#include "core/profile.h"

#include <algorithm>

namespace tessera {
Cost& Cost::operator+=(const Cost& other) {
  calls += other.calls;
  seconds += other.seconds;
  operations += other.operations;
  bytes += other.bytes;
  return *this;
}

double Profile::Phase::rest() const {
  double in_stages = 0;
  for (const Stage& stage : stages) in_stages += stage.cost.seconds;
  return std::max(0.0, cost.seconds - in_stages);
}

Profile::Phase& Profile::phase(std::string_view name) {
  const auto found = std::ranges::find(phases_, name, &Phase::name);
  if (found != phases_.end()) return *found;
  phases_.push_back({std::string(name), {}, {}});
  return phases_.back();
}

void PhaseScope::begin(std::string_view name) {
  start_ = Clock::now();
  outer_ = profile_->current_;
  profile_->current_ = name;
  profile_->phase(name);  // so that phases come in the order in which they began
}

void PhaseScope::end() {
  const double took = seconds_since(start_);
  profile_->phase(profile_->current_).cost += {1, took, 0, 0};
  profile_->current_ = outer_;
  if (!outer_.empty()) profile_->phase(outer_).cost.seconds -= took;
}

void StageScope::begin(std::string_view name, const StageWork& work) {
  name_ = name;
  if (work.out) name_ += " " + std::to_string(work.in) + " > " + std::to_string(work.out);
  work_ = work;
  profile_->inside_stage_ = true;
  start_ = Clock::now();
}

void StageScope::end() {
  const Cost cost{1, seconds_since(start_), work_.operations, work_.bytes};
  profile_->inside_stage_ = false;
  Profile::Phase& phase = profile_->phase(profile_->current_);
  phase.cost.operations += cost.operations;
  phase.cost.bytes += cost.bytes;
  if (profile_->current_.empty()) phase.cost.seconds += cost.seconds;
  const auto found = std::ranges::find(phase.stages, name_, &Profile::Stage::name);
  if (found != phase.stages.end()) {
    found->cost += cost;
  } else {
    phase.stages.push_back({name_, cost});
  }
}

}  // namespace tessera
