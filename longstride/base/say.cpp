#include "longstride/base/say.h"

#include <cerrno>
#include <string>

#include <unistd.h>

#include "longstride/base/printable.h"

namespace longstride {

namespace {
constexpr size_t kLongestLine = 4000, kShownEnd = 500;
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
  std::string shown;
  if (line.size() > kLongestLine) {
    shown = printable_line(line.substr(0, kLongestLine - kShownEnd));
    shown += fmt::format(" [{} bytes left out] ", line.size() - kLongestLine);
    line.remove_prefix(line.size() - kShownEnd);
  }
  write_to_standard_error(shown + printable_line(line) + "\n");
}

}  // namespace longstride
