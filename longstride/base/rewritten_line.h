// A line at the bottom of a terminal that is written again and again. Between two writes the cursor waits at its beginning.
// A terminal that becomes narrower may wrap the line into several; the cursor stays before the first of them, so that
// erasing from there to the end of the screen leaves no piece, whatever the terminal did and whatever its width was.
#pragma once

#include <string>
#include <string_view>

namespace longstride {

// Removes the line.
inline constexpr std::string_view kEraseLine = "\r\x1b[J";

// Writes it in place of what stood there. The text must be narrower than the terminal: in the last column some begin a
// new line at once.
inline std::string rewritten_line(std::string_view text) {
  std::string line(1, '\r');
  line.append(text).append("\x1b[J\r");
  return line;
}

}  // namespace longstride
