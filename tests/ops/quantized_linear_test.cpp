#include "longstride/ops/quantized_linear.h"

#include <cmath>

#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(QuantizedLinear, AgreesWithTheReference) {
  expect_all_pass(verify::check_quantized_linear({}, verify::Effort::thorough));
}

TEST(QuantizedLinear, KnownValues) {
  std::vector<float> w{127, -63.5f, 1, 0, 0, 0, -0.254f, 0.1f, 0.254f};  // halves go away from zero
  std::vector<int8_t> values(9, 99);
  std::vector<float> scales(3, NAN);
  const QuantizedMatrix q{matrix(values, 3, 3), flat(scales)};
  run({}, Quantize{matrix(w, 3, 3), q});
  EXPECT_THAT(values, testing::ElementsAre(127, -64, 1, 0, 0, 0, -127, 50, 127));
  EXPECT_THAT(scales, testing::ElementsAre(1, 0, testing::FloatEq(0.002f)));
  std::vector<float> x{1, 1, 1}, b{0.5f, 7, 0}, y(3, NAN);
  run({}, QuantizedLinearForward{matrix(x, 1, 3), q, flat(b), matrix(y, 1, 3)});
  EXPECT_THAT(y, testing::ElementsAre(64.5f, 7, testing::FloatEq(0.1f)));
}

// The smallest and the largest numbers must neither overflow the eight bits nor divide by zero.
TEST(QuantizedLinear, TakesAnyFiniteMagnitude) {
  std::vector<float> w{1e-45f, -1e-45f, 3.4e38f, -3.4e38f, 1e-39f, -1e-39f};
  std::vector<int8_t> values(6, 99);
  std::vector<float> scales(3, NAN);
  run({}, Quantize{matrix(w, 3, 2), {matrix(values, 3, 2), flat(scales)}});
  for (const float scale : scales) EXPECT_TRUE(std::isfinite(scale));
  for (const int value : values) EXPECT_LE(std::abs(value), 127);
  EXPECT_EQ(values[2], 127);
  EXPECT_EQ(values[3], -127);
}

TEST(QuantizedLinear, RefusesWrongTensors) {
  std::vector<float> w(6), scales(2), x(3), y(2);
  std::vector<int8_t> values(6);
  std::vector<uint8_t> bytes(6);
  const QuantizedMatrix q{matrix(values, 2, 3), flat(scales)};
  EXPECT_THAT(error_of([&] {
                run({}, Quantize{matrix(w, 3, 2), q});
              }),
              testing::HasSubstr("quantize: w is f32 (3, 2), must be f32 (2, 3)"));
  EXPECT_THAT(error_of([&] {
                run({}, Quantize{matrix(w, 2, 3), {matrix(bytes, 2, 3), flat(scales)}});
              }),
              testing::HasSubstr("values is u8 (2, 3), must be i8"));
  EXPECT_THAT(error_of([&] {
                run({}, Quantize{matrix(w, 2, 3), {matrix(values, 2, 3), flat(x)}});
              }),
              testing::HasSubstr("scales is f32 (3), must be f32 (2)"));
  EXPECT_THAT(error_of([&] { run({}, Dequantize{q, matrix(bytes, 2, 3)}); }), testing::HasSubstr("w is u8"));
  EXPECT_THAT(error_of([&] {
                run({}, QuantizedLinearForward{matrix(y, 1, 2), q, {}, matrix(y, 1, 2)});
              }),
              testing::HasSubstr("x is f32 (1, 2), must be f32 (any, 3)"));
  w[4] = NAN;
  EXPECT_THAT(error_of([&] { run({}, Quantize{matrix(w, 2, 3), q}); }), testing::HasSubstr("w[4] is nan"));
}

}  // namespace
}  // namespace longstride
