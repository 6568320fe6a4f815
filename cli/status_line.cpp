#include "cli/status_line.h"

#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "longstride/base/printable.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"

namespace longstride::cli {

namespace {

// At most so many characters.
std::string first_columns(const std::string& text, size_t columns) {
  const std::string shown = printable_line(text);
  size_t at = 0;
  for (size_t characters = 0; at < shown.size(); ++at) {
    const bool begins = (static_cast<unsigned char>(shown[at]) & 0xC0) != 0x80;
    if (begins && ++characters > columns) break;
  }
  return shown.substr(0, at);
}

}  // namespace

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
  // A line that is wider than the terminal would go on in a second one, which nobody removes. The last column stays
  // free, because some terminals begin a new line once it is written.
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  write_to_standard_error("\r\x1b[K" + first_columns(text, known ? size.ws_col - 1u : 79u));
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
