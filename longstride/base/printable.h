// Bytes from anywhere as text that is safe on a terminal.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace longstride {

// Any bytes as UTF-8. Well-formed characters stay. Control characters other than newline and tab, and bytes
// that are not UTF-8, become \xNN.
std::string printable(std::span<const uint8_t> bytes);
std::string printable(std::string_view bytes);

// The same on one line: newlines become \xNN too.
std::string printable_line(std::string_view bytes);

bool is_utf8(std::string_view bytes);

}  // namespace longstride
