#include "cli/status_line.h"

#include <cstdlib>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/ioctl.h>
#include <unistd.h>

#include "longstride/base/printable.h"
#include "longstride/base/rewritten_line.h"
#include "longstride/base/say.h"
#include "longstride/base/text.h"

#include "cli/standard_streams.h"

namespace longstride::cli {

namespace {

// A line that is wider than the terminal would go on in a second one, which nobody removes.
size_t columns_to_use() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col - 1u : 79u;
}

// What fits into so many columns. Letters from U+1000 on may take two, as Chinese ones do.
std::string first_columns(const std::string& text, size_t columns) {
  const std::string shown = printable_line(text);
  size_t at = 0;
  for (size_t used = 0; at < shown.size(); ++at) {
    const auto byte = static_cast<unsigned char>(shown[at]);
    if ((byte & 0xC0) == 0x80) continue;
    used += byte > 0xE0 ? 2 : 1;
    if (used > columns) break;
  }
  return shown.substr(0, at);
}

}  // namespace

StatusLine::StatusLine(std::string action, bool quiet, std::string unit)
    : action_(std::move(action)), unit_(std::move(unit)) {
  const char* terminal = std::getenv("TERM");
  json_ = !quiet && log_format() == LogFormat::json;
  active_ = !quiet && !json_ && isatty(STDERR_FILENO) && terminal != nullptr &&
            std::string_view(terminal) != "dumb";
  if (json_) last_ = begin_;
}

double StatusLine::seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

bool StatusLine::due() const {
  if (json_) return Clock::now() - last_ >= std::chrono::seconds(10);
  return active_ && !(drawn_ && Clock::now() - last_ < std::chrono::milliseconds(200));
}

void StatusLine::draw(const std::string& text) {
  last_ = Clock::now();
  if (json_) return longstride::say_line(text);
  drawn_ = true;
  write_to_standard_error(rewritten_line(first_columns(text, columns_to_use())));
}

void StatusLine::update(int64_t done, int64_t total, int64_t before) {
  if (done <= before || total <= 0 || !due()) return;
  const double rate = static_cast<double>(done - before) / seconds();
  if (json_) {
    last_ = Clock::now();
    const nlohmann::ordered_json event{{"event", "progress"},
                                       {"action", action_},
                                       {"done", done},
                                       {"total", total},
                                       {"unit", unit_},
                                       {"a_second", rate},
                                       {"seconds_left", static_cast<double>(total - done) / rate}};
    return say_event(event);
  }
  // Until it fits, the last part is left out.
  std::vector<std::string> parts{
      fmt::format("{} {:3.0f} %", action_, 100 * static_cast<double>(done) / static_cast<double>(total)),
      human_seconds(static_cast<double>(total - done) / rate) + " left",
      fmt::format("{} {}/s", human_count(rate), unit_)};
  const auto line = [&] { return fmt::format("{}", fmt::join(parts, "  ")); };
  while (parts.size() > 1 && line().size() > columns_to_use()) parts.pop_back();
  draw(line());
}

void StatusLine::say(const std::string& what) {
  if (due()) draw(what);
  begin_ = Clock::now();
}

void StatusLine::clear() {
  if (drawn_) write_to_standard_error(kEraseLine);
  drawn_ = false;
}

}  // namespace longstride::cli
