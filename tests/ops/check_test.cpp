// The comparison itself: it must fail where it should.
#include "longstride/verify/check.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride::verify {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInfinity = std::numeric_limits<float>::infinity();

TEST(RelativeError, IsTheLargestDifferenceOverTheLargestReference) {
  const std::vector<float> ours{1.0f, 2.5f, -4.0f};
  EXPECT_DOUBLE_EQ(relative_error(ours, std::vector<double>{1, 2, -4}), 0.125);
  EXPECT_DOUBLE_EQ(relative_error(ours, std::vector<double>{1, 2.5, -4}), 0);
}

TEST(RelativeError, NanIsInfinite) {
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{kNan}, std::vector<double>{1})));
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{1}, std::vector<double>{kNan})));
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{kNan}, std::vector<double>{kNan})));
}

TEST(RelativeError, OnlyEqualInfinitiesAgree) {
  EXPECT_EQ(relative_error(std::vector<float>{kInfinity, 1}, std::vector<double>{kInfinity, 1}), 0);
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{kInfinity}, std::vector<double>{-kInfinity})));
  EXPECT_TRUE(std::isinf(relative_error(std::vector<float>{kInfinity}, std::vector<double>{1})));
}

TEST(RelativeError, ADivisorIsNeverBelowTheSmallest) {
  EXPECT_DOUBLE_EQ(relative_error(std::vector<float>{0.5f}, std::vector<double>{0}, 2), 0.25);
}

TEST(RelativeError, SizesMustAgree) {
  EXPECT_THROW(relative_error(std::vector<float>{1}, std::vector<double>{1, 2}), Error);
}

TEST(Compare, AllowsTwiceTheNaiveErrorAndTheFloor) {
  const std::vector<double> reference{1};
  const std::vector<float> naive{1.25f};
  EXPECT_TRUE(compare("", std::vector<float>{1.5f}, naive, reference, 0.0).passed());
  EXPECT_FALSE(compare("", std::vector<float>{1.625f}, naive, reference, 0.0).passed());
  EXPECT_TRUE(compare("", std::vector<float>{1.625f}, naive, reference, 0.125).passed());
  EXPECT_FALSE(compare("", std::vector<float>{kNan}, naive, reference).passed());
}

TEST(Compare, ANaiveNanExcusesNothing) {
  EXPECT_FALSE(
      compare("", std::vector<float>{kNan}, std::vector<float>{kNan}, std::vector<double>{1}).passed());
  EXPECT_FALSE(compare("", std::vector<float>{2}, std::vector<float>{kNan}, std::vector<double>{1}).passed());
}

}  // namespace
}  // namespace longstride::verify
