#include "text/stop_filter.h"

#include <algorithm>
#include <utility>

namespace tessera::text {
namespace {

/// Length of the longest end of `text` that is the beginning of `stop`, but not all of it.
std::size_t overlap(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  std::size_t begin = held_.npos, end = held_.npos;
  std::size_t kept = 0;
  for (const std::string& stop : stops_) {
    kept = std::max(kept, overlap(held_, stop));
    const std::size_t at = held_.find(stop);
    if (at == held_.npos) continue;
    if (std::pair(at + stop.size(), at) < std::pair(end, begin)) {
      begin = at;
      end = at + stop.size();
    }
  }
  stopped_ = begin != held_.npos;
  std::string certain = held_.substr(0, stopped_ ? begin : held_.size() - kept);
  held_.erase(0, stopped_ ? held_.size() : certain.size());
  return certain;
}

std::string StopFilter::finish() { return std::exchange(held_, {}); }

}  // namespace tessera::text
