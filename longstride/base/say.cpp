#include "longstride/base/say.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>

#include <unistd.h>

#include "longstride/base/printable.h"

namespace longstride {

namespace {
constexpr size_t kLongestLine = 4000, kShownEnd = 500;
std::atomic<LogFormat> chosen_format{LogFormat::text};

// In quotes. The text is printable already, so that tabs are its only control characters.
std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c == '\t' ? std::string("\\t") : std::string{c};
  }
  return result + "\"";
}

bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= 12 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == ' '; });
}
}  // namespace

void set_log_format(LogFormat format) { chosen_format = format; }
LogFormat log_format() { return chosen_format; }

std::string as_event(std::string_view line) {
  constexpr std::string_view kProgram = "longstride: ";
  std::string event = "message";
  if (line.starts_with(kProgram)) {
    event = "error";
    line.remove_prefix(kProgram.size());
  } else if (const size_t end = line.find("  ");
             end != std::string_view::npos && is_word(line.substr(0, end))) {
    event = line.substr(0, end);
    std::replace(event.begin(), event.end(), ' ', '_');
    line.remove_prefix(std::min(line.find_first_not_of(' ', end), line.size()));
  }
  return fmt::format("{{\"event\":{},\"text\":{}}}", quoted(event), quoted(printable_line(line)));
}

void write_to_standard_error(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void say_line(std::string_view line) {
  if (log_format() == LogFormat::json) return write_to_standard_error(as_event(line) + "\n");
  std::string shown;
  if (line.size() > kLongestLine) {
    shown = printable_line(line.substr(0, kLongestLine - kShownEnd));
    shown += fmt::format(" [{} bytes left out] ", line.size() - kLongestLine);
    line.remove_prefix(line.size() - kShownEnd);
  }
  write_to_standard_error(shown + printable_line(line) + "\n");
}

}  // namespace longstride
