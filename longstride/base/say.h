// Lines for people on standard error.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace longstride {

// How messages appear: as lines for people, or for programs as one JSON object a line, which has "event" and "text".
enum class LogFormat { text, json };
void set_log_format(LogFormat format);
LogFormat log_format();

// A line as such an object. The event is the word that the line begins with, where at least two blanks follow it
// ("note", "warning", "run", ..); "error" where it begins with the program's name; else "message".
std::string as_event(std::string_view line);

// Writes the line and a newline at once, in the format that was set. Control characters and newlines within it appear as \xNN, and the
// middle of a very long one is left out. Never throws because of a missing reader: where standard error is
// closed or full, the work matters more than its messages.
void say_line(std::string_view line);

template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  say_line(fmt::format(format, std::forward<Args>(args)...));
}

// The bytes as they are, under the same rule.
void write_to_standard_error(std::string_view text) noexcept;

}  // namespace longstride
