#include "longstride/checkpoint/json_fields.h"

#include <string>

#include <gtest/gtest.h>

namespace longstride {
namespace {

std::string nested(int levels) {
  return std::string(static_cast<size_t>(levels), '[') + std::string(static_cast<size_t>(levels), ']');
}

TEST(ParseJson, RefusesManyLevels) {
  EXPECT_NO_THROW(parse_json(nested(kMostJsonLevels)));
  EXPECT_THROW(parse_json(nested(kMostJsonLevels + 1)), nlohmann::json::parse_error);
  EXPECT_TRUE(parse_json_or_discard(nested(1'000'000)).is_discarded());
  EXPECT_TRUE(parse_json_or_discard("[").is_discarded());
}

TEST(ParseJson, BracketsInStringsAreNoLevels) {
  const std::string text = R"("\"[\\)" + std::string(1000, '{') + "\"";
  EXPECT_EQ(parse_json(text).get<std::string>(), "\"[\\" + std::string(1000, '{'));
  EXPECT_TRUE(parse_json_or_discard(R"({"a\\":[1,{"b":2}]})").is_object());
}

TEST(ParseJson, SaysWhyInItsOwnWords) {
  try {
    parse_json(nested(100));
    FAIL();
  } catch (const nlohmann::json::exception& error) {
    EXPECT_NE(reason_of(error).find("more than 64 levels"), std::string::npos) << reason_of(error);
  }
}

}  // namespace
}  // namespace longstride
