#include "longstride/base/printable.h"

#include <gtest/gtest.h>

namespace longstride {
namespace {

using std::string_view_literals::operator""sv;

TEST(Printable, WellFormedTextStays) {
  for (const std::string_view text :
       {""sv, "plain text\n\twith tabs"sv, "gr\xC3\xBC\xC3\x9F"sv, "\xE2\x82\xAC"sv, "\xF0\x9F\x8E\xBB"sv,
        "\xC2\xA0"sv, "\xED\x9F\xBF\xEE\x80\x80"sv, "a\\x41"sv})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, ControlCharactersAreShown) {
  EXPECT_EQ(printable("a\0b\x1b[31m\r\x7f"sv), "a\\x00b\\x1b[31m\\x0d\\x7f");
  EXPECT_EQ(printable("\xC2\x9B"sv), "\\xc2\\x9b");  // a terminal takes U+009B for the start of a command
}

// The ill-formed sequences of the Unicode standard, chapter 3.9: overlong, surrogate, too large, cut off,
// lone.
TEST(Printable, InvalidBytesAreShown) {
  EXPECT_EQ(printable("\xC0\xAF"sv), "\\xc0\\xaf");
  EXPECT_EQ(printable("\xE0\x80\xAF"sv), "\\xe0\\x80\\xaf");
  EXPECT_EQ(printable("\xED\xA0\x80"sv), "\\xed\\xa0\\x80");
  EXPECT_EQ(printable("\xF4\x90\x80\x80"sv), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(printable("\xF0\x8F\xBF\xBF"sv), "\\xf0\\x8f\\xbf\\xbf");
  EXPECT_EQ(printable("x\x80y\xFF"sv), "x\\x80y\\xff");
  EXPECT_EQ(printable("\xE2\x82"sv), "\\xe2\\x82");
  EXPECT_EQ(printable("\xE2\x82z"sv), "\\xe2\\x82z");
  EXPECT_EQ(printable("\xC3\xC3\xBC"sv), "\\xc3\xC3\xBC");
}

}  // namespace
}  // namespace longstride
