#include "longstride/base/text.h"

#include <cstdint>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

TEST(Nearest, FindsTyposAndNothingElse) {
  const std::vector<std::string> known{"model.layers", "model.heads", "train.steps"};
  EXPECT_EQ(nearest("model.layer", known), "model.layers");
  EXPECT_EQ(nearest("train.setps", known), "train.steps");
  EXPECT_EQ(nearest("zzz", known), "");
  EXPECT_EQ(nearest("version", {"train", "eval", "inspect"}), "");
  EXPECT_EQ(nearest(std::string(10'000'000, 'x'), known), "");
}

TEST(Nearest, UnderstandsOtherSectionsAndAbbreviations) {
  const std::vector<std::string> known{"train.clip", "train.learning_rate", "train.steps", "train.minutes"};
  EXPECT_EQ(nearest("train.lr", known), "train.learning_rate");
  EXPECT_EQ(nearest("lr", known), "train.learning_rate");
  EXPECT_EQ(nearest("model.steps", known), "train.steps");
  EXPECT_EQ(nearest("steps", known), "train.steps");
  EXPECT_EQ(nearest("train.learning", known), "train.learning_rate");
}

TEST(Human, Figures) {
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(12), "12 B");
  EXPECT_EQ(human_count(94949888), "94.9M");
  EXPECT_EQ(human_seconds(3725), "1h 02m");
  EXPECT_EQ(human_seconds(61), "1m 01s");
}

TEST(Parse, WholeTextOrError) {
  EXPECT_EQ(parse_integer("1_000", "x"), 1000);
  EXPECT_EQ(parse_integer("64Ki", "x"), 65536);
  EXPECT_EQ(parse_integer("2M", "x"), 2000000);
  EXPECT_THROW(parse_integer("12a", "x"), Error);
  EXPECT_THROW(parse_integer("", "x"), Error);
  EXPECT_THROW(parse_integer("90000000000G", "x"), Error);
  EXPECT_DOUBLE_EQ(parse_number("0.25", "x"), 0.25);
  EXPECT_THROW(parse_number("0.25.1", "x"), Error);
  EXPECT_EQ(parse_integer("0100", "x"), 100);
  EXPECT_EQ(parse_integer("-3", "x"), -3);
  EXPECT_EQ(parse_integer("+3", "x"), 3);
  EXPECT_EQ(parse_integer("9223372036854775807", "x"), INT64_MAX);
  EXPECT_EQ(parse_unsigned("18446744073709551615", "x"), UINT64_MAX);
  EXPECT_EQ(parse_unsigned("2k", "x"), 2000u);
  for (const char* wrong : {"0x10", "1e3", "1.0", "_1", "1_", "1__0", "1_k", "++1", "+-1", "-", "k", "1 2"})
    EXPECT_THROW(parse_integer(wrong, "x"), Error) << wrong;
  EXPECT_THROW(parse_unsigned("-1", "x"), Error);
  EXPECT_THROW(parse_unsigned("18446744073709551616", "x"), Error);
  EXPECT_EQ(parse_number("1_000.5", "x"), 1000.5);
  EXPECT_THAT(message_of<Error>([] { parse_integer("99999999999999999999", "--length"); }),
              testing::HasSubstr("--length: '99999999999999999999' is too large, 9223372036854775807 is"));
}

}  // namespace
}  // namespace longstride
