#include "cli/terminal_text.h"

#include <utility>

#include "longstride/base/printable.h"

namespace longstride::cli {

namespace {

// Bytes of the UTF-8 character that begins with `lead`; 1 for a byte that begins none.
size_t character_length(uint8_t lead) {
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  return 1;
}

}  // namespace

std::string TerminalText::push(uint8_t byte) {
  std::string shown;
  const bool continues = (byte & 0xc0) == 0x80;
  if (!pending_.empty() && !continues) shown = finish();
  pending_.push_back(static_cast<char>(byte));
  if (pending_.size() >= character_length(static_cast<uint8_t>(pending_[0]))) shown += finish();
  return shown;
}

std::string TerminalText::finish() { return printable(std::exchange(pending_, {})); }

}  // namespace longstride::cli
