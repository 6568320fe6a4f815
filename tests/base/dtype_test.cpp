#include "longstride/base/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace longstride {
namespace {

TEST(Bf16, RoundsToNearestEven) {
  EXPECT_EQ(float(Bf16(1.0f)), 1.0f);
  EXPECT_EQ(float(Bf16(1.00390625f)), 1.0f);       // half way between 1 and 1.0078125: to even
  EXPECT_EQ(float(Bf16(1.01171875f)), 1.015625f);  // half way, the lower neighbour is odd
  EXPECT_EQ(float(Bf16(1.0041f)), 1.0078125f);
  EXPECT_TRUE(std::isnan(float(Bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(float(Bf16(3.4e38f)), std::numeric_limits<float>::infinity());
}

TEST(F16, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    F16 half;
    half.bits = static_cast<uint16_t>(bits);
    const float value = float(half);
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(float(F16(value))));
    else
      EXPECT_EQ(F16(value).bits, half.bits) << bits;
  }
}

TEST(F16, RoundsToNearestEvenAndOverflows) {
  EXPECT_EQ(float(F16(1.00048828125f)), 1.0f);  // half way between 1 and 1 + 2^-10
  EXPECT_EQ(float(F16(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(float(F16(65520.0f))));
  EXPECT_EQ(float(F16(2.9802322387695312e-8f)), 0.0f);  // half of the smallest: to even
  EXPECT_EQ(float(F16(3.0e-8f)), 5.9604644775390625e-8f);
}

TEST(DTypeNames, RoundTripAndReject) {
  for (DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8, DType::i8})
    EXPECT_EQ(parse_dtype(name_of(dtype)), dtype);
  EXPECT_THROW(parse_dtype("fp32"), Error);
}

}  // namespace
}  // namespace longstride
