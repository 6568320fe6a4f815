#include "longstride/base/printable.h"

#include <algorithm>

#include <fmt/format.h>

namespace longstride {

namespace {

std::span<const uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The length of the well-formed UTF-8 character at the beginning (Unicode 15, table 3-7), or 0.
size_t utf8_length(std::span<const uint8_t> text) {
  const uint8_t lead = text[0];
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                        : (lead & 0xF0) == 0xE0        ? 3
                        : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                       : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((text[i] & 0xC0) != 0x80) return 0;
  // Overlong forms, surrogates, and what lies above U+10FFFF.
  if ((lead == 0xE0 && text[1] < 0xA0) || (lead == 0xED && text[1] > 0x9F) ||
      (lead == 0xF0 && text[1] < 0x90) || (lead == 0xF4 && text[1] > 0x8F))
    return 0;
  return length;
}

}  // namespace

std::string printable(std::span<const uint8_t> bytes) {
  std::string result;
  while (!bytes.empty()) {
    size_t length = utf8_length(bytes);
    const bool escape = bytes[0] < 0x20
                            ? bytes[0] != '\n' && bytes[0] != '\t'
                            : bytes[0] == 0x7F || (bytes[0] == 0xC2 && length == 2 && bytes[1] < 0xA0);
    if (length == 0 || escape) {
      length = std::max<size_t>(1, length);
      for (size_t i = 0; i < length; ++i) result += fmt::format("\\x{:02x}", bytes[i]);
    } else {
      result.append(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length));
    }
    bytes = bytes.subspan(length);
  }
  return result;
}

std::string printable(std::string_view bytes) { return printable(as_bytes(bytes)); }

std::string printable_line(std::string_view bytes) {
  std::string line;
  for (const char c : printable(bytes)) c == '\n' ? line += "\\x0a" : line += c;
  return line;
}

bool is_utf8(std::string_view text) {
  for (std::span<const uint8_t> bytes = as_bytes(text); !bytes.empty();) {
    const size_t length = utf8_length(bytes);
    if (length == 0) return false;
    bytes = bytes.subspan(length);
  }
  return true;
}

}  // namespace longstride
