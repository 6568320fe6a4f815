#include "cli/status_line.h"

#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <unistd.h>

#include "longstride/base/say.h"
#include "longstride/base/text.h"

namespace longstride::cli {

StatusLine::StatusLine(std::string action, bool quiet, std::string unit)
    : action_(std::move(action)), unit_(std::move(unit)) {
  const char* terminal = std::getenv("TERM");
  active_ = !quiet && isatty(STDERR_FILENO) && terminal != nullptr && std::string_view(terminal) != "dumb";
}

double StatusLine::seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

bool StatusLine::due() const {
  return active_ && !(drawn_ && Clock::now() - last_ < std::chrono::milliseconds(200));
}

void StatusLine::draw(const std::string& text) {
  last_ = Clock::now();
  drawn_ = true;
  write_to_standard_error("\r\x1b[K" + text);
}

void StatusLine::update(int64_t done, int64_t total, int64_t before) {
  if (done <= before || total <= 0 || !due()) return;
  const double rate = static_cast<double>(done - before) / seconds();
  draw(fmt::format("{} {:3.0f} %  {} {}/s  {} left", action_,
                   100 * static_cast<double>(done) / static_cast<double>(total), human_count(rate), unit_,
                   human_seconds(static_cast<double>(total - done) / rate)));
}

void StatusLine::say(const std::string& what) {
  if (due()) draw(what);
  begin_ = Clock::now();
}

void StatusLine::clear() {
  if (drawn_) write_to_standard_error("\r\x1b[K");
  drawn_ = false;
}

}  // namespace longstride::cli
