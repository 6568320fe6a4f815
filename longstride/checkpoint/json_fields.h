// Numbers in JSON that others may have written.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "longstride/base/check.h"

namespace longstride {

// Parses JSON that others may have written. The library copies and writes values by recursion, so that many levels
// would take all of the stack; no file of longstride has more than a few. Throws nlohmann::json::parse_error, also for
// more than kMostJsonLevels.
inline constexpr int kMostJsonLevels = 64;
nlohmann::json parse_json(std::string_view text);
// The same, but what cannot be parsed is a value that is_discarded().
nlohmann::json parse_json_or_discard(std::string_view text);

// Throws Error, which names it `name`, unless it is a whole number from 0 to the largest of 64 bits with sign.
// The library alone would cut 1.5 to 1, and make some number of 1e300.
inline int64_t whole_number(const nlohmann::json& number, const char* name) {
  LONGSTRIDE_CHECK(
      number.is_number_unsigned() && number.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()},
      "{} must be a whole number from 0 on", name);
  return number.get<int64_t>();
}

inline int64_t whole_number_at(const nlohmann::json& object, const char* name) {
  return whole_number(object.at(name), name);
}

// The same with all 64 bits.
inline uint64_t bits_at(const nlohmann::json& object, const char* name) {
  const nlohmann::json& number = object.at(name);
  LONGSTRIDE_CHECK(number.is_number_unsigned(), "{} must be a whole number from 0 on", name);
  return number.get<uint64_t>();
}

// What the library says, without its number of the error.
inline std::string reason_of(const nlohmann::json::exception& error) {
  const std::string_view said = error.what();
  const size_t number_ends = said.starts_with('[') ? said.find("] ") : std::string_view::npos;
  return std::string(number_ends == std::string_view::npos ? said : said.substr(number_ends + 2));
}

}  // namespace longstride
