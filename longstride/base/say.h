// Lines for people on standard error.
#pragma once

#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace longstride {

// Writes the line and a newline at once. Control characters and newlines within it appear as \xNN, and the
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
