#include "cli/status_line.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <unistd.h>

#include "longstride/base/text.h"

namespace longstride::cli {

StatusLine::StatusLine(std::string action, bool quiet) : action_(std::move(action)) {
  const char* terminal = std::getenv("TERM");
  active_ = !quiet && isatty(STDERR_FILENO) && terminal != nullptr && std::string_view(terminal) != "dumb";
}

double StatusLine::seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

void StatusLine::update(int64_t done, int64_t total) {
  if (!active_ || done <= 0 || total <= 0) return;
  const auto now = Clock::now();
  if (drawn_ && now - last_ < std::chrono::milliseconds(200)) return;
  last_ = now;
  drawn_ = true;
  const double rate = static_cast<double>(done) / seconds();
  fmt::print(stderr, "\r\x1b[K{} {:3.0f} %  {} bytes/s  {} left", action_,
             100 * static_cast<double>(done) / static_cast<double>(total), human_count(rate),
             human_seconds(static_cast<double>(total - done) / rate));
  std::fflush(stderr);
}

void StatusLine::clear() {
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace longstride::cli
