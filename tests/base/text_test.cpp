#include "longstride/base/text.h"

#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

TEST(Nearest, FindsTyposAndNothingElse) {
  const std::vector<std::string> known{"model.layers", "model.heads", "train.steps"};
  EXPECT_EQ(nearest("model.layer", known), "model.layers");
  EXPECT_EQ(nearest("train.setps", known), "train.steps");
  EXPECT_EQ(nearest("zzz", known), "");
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
}

}  // namespace
}  // namespace longstride
