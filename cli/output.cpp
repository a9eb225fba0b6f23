#include "cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "core/error.h"

namespace tessera::cli {

void print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  if (errno == EPIPE) throw ClosedPipe{};
  throw IoError(concat("standard output: ", std::strerror(errno)));
}

void print_line(std::string_view text) { print(concat(text, "\n")); }

void print_row(const std::string& name, const std::string& value, std::size_t width) {
  const std::size_t spaces = name.size() < width ? width - name.size() : 1;
  print_line(name + std::string(spaces, ' ') + value);
}

void print_json(const Json& object) {
  print_line(object.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void report(std::string_view message) {
  std::fprintf(stderr, "tessera: %.*s\n", static_cast<int>(message.size()), message.data());
}

Progress::Progress(std::string label, std::string unit, bool wanted)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      wanted_(wanted && isatty(STDERR_FILENO) == 1) {}

void Progress::show(double done, double total, const std::string& more) {
  if (!wanted_ || total <= 0) return;
  constexpr int kWidth = 30;
  const double share = std::clamp(done / total, 0.0, 1.0);
  const auto filled = static_cast<std::size_t>(std::lround(share * kWidth));
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f%%  %.0f/%.0f %s%s", label_.c_str(), bar.c_str(),
               100 * share, done, total, unit_.c_str(), more.c_str());
  std::fflush(stderr);
  shown_ = true;
}

void Progress::clear() {
  if (shown_) std::fputs("\r\033[K", stderr);
  shown_ = false;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "tessera-XXXXXX").string();
  if (!mkdtemp(name.data())) throw IoError(concat(name, ": can't be made"));
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool stdout_is_terminal() { return isatty(STDOUT_FILENO) == 1; }

std::string clock_time(double seconds) {
  const auto ms = static_cast<long long>(std::llround(std::max(0.0, seconds) * 1000));
  char text[48];
  if (ms < 3600000) {
    std::snprintf(text, sizeof text, "%02lld:%02lld.%03lld", ms / 60000, ms / 1000 % 60, ms % 1000);
  } else {
    std::snprintf(text, sizeof text, "%02lld:%02lld:%02lld.%03lld", ms / 3600000, ms / 60000 % 60,
                  ms / 1000 % 60, ms % 1000);
  }
  return text;
}

}  // namespace tessera::cli
