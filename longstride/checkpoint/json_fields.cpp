#include "longstride/checkpoint/json_fields.h"

namespace longstride {

namespace {

// Counts brackets outside of strings. Text that is no JSON may give any answer, and is then refused by the parser.
bool is_too_deep(std::string_view text) {
  int levels = 0;
  bool quoted = false;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\')
        ++at;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++levels > kMostJsonLevels) return true;
    } else if (c == ']' || c == '}') {
      --levels;
    }
  }
  return false;
}

}  // namespace

nlohmann::json parse_json(std::string_view text) {
  if (is_too_deep(text))
    throw nlohmann::json::parse_error::create(101, 0, "more than 64 levels of brackets", nullptr);
  return nlohmann::json::parse(text);
}

nlohmann::json parse_json_or_discard(std::string_view text) {
  if (is_too_deep(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace longstride
