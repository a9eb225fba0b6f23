#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace tessera::text {

/// Passes text on up to the first stop string, and holds back what may be the beginning of one. The
/// result does not depend on how the text is cut into pieces: the string that is complete first
/// ends it; of several that end at the same byte, the longest.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  /// The text that became certain. After a stop string: nothing.
  std::string push(std::string_view text);
  /// The rest, which turned out to be no stop string.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tessera::text
