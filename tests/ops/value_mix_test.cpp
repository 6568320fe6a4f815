#include "longstride/ops/value_mix.h"

#include <cmath>

#include "longstride/ops/reference/value_mix.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(ValueMix, AgreesWithTheReference) {
  expect_all_pass(verify::check_value_mix({}, verify::Effort::thorough));
}

TEST(ValueMix, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kCount = 5;
  const std::vector<double> x = normal_doubles(1, kCount), first = normal_doubles(2, kCount),
                            dy = normal_doubles(3, kCount);
  const auto loss = [&](const auto& own, const auto& others) {
    auto y = own;
    using T = typename std::decay_t<decltype(own)>::value_type;
    reference::value_mix_forward(others.data(), T(0.3), kCount, y.data());
    return dot(y, complexified(dy));
  };
  std::vector<double> dx = dy, d_first(kCount);
  reference::value_mix_backward(0.3, kCount, dx.data(), d_first.data());
  expect_near_all(dx, complex_step_gradient([&](const auto& at) { return loss(at, complexified(first)); }, x),
                  1e-13);
  expect_near_all(d_first,
                  complex_step_gradient([&](const auto& at) { return loss(complexified(x), at); }, first),
                  1e-13);
}

TEST(ValueMix, KnownValues) {
  std::vector<float> x{4, 8, -4, 0}, first{8, 0, 4, 1}, dx{4, 8, -4, 0}, sums{NAN, NAN, NAN, NAN}, own{1, 1};
  run({}, ValueMixForward{matrix(first, 2, 2), 0.25f, matrix(x, 2, 2)});
  EXPECT_THAT(x, testing::ElementsAre(5, 6, -2, 0.25f));
  run({}, ValueMixBackward{0.25f, false, matrix(dx, 2, 2), matrix(sums, 2, 2)});
  EXPECT_THAT(dx, testing::ElementsAre(3, 6, -3, 0));
  EXPECT_THAT(sums, testing::ElementsAre(1, 2, -1, 0));
  run({}, ValueMixBackward{0.25f, true, matrix(dx, 2, 2), matrix(sums, 2, 2)});
  EXPECT_THAT(sums, testing::ElementsAre(1.75f, 3.5f, -1.75f, 0));
  run({}, ValueMixBackwardFirst{matrix(sums, 2, 2).rows(1, 2), matrix(own, 1, 2)});
  EXPECT_THAT(own, testing::ElementsAre(-0.75f, 1));
}

// 16 bits would lose the thousandth one in a sum of ones.
TEST(ValueMix, GradientsOfManyBlocksAddUpInFullPrecision) {
  std::vector<Bf16> dx;
  std::vector<float> sum(1);
  for (int block = 0; block < 1000; ++block) {
    dx.assign(1, Bf16(1.0f));
    run({}, ValueMixBackward{0.5f, block > 0, matrix(dx, 1, 1), matrix(sum, 1, 1)});
  }
  EXPECT_EQ(sum[0], 500.0f);
}

TEST(ValueMix, RefusesWrongTensors) {
  std::vector<float> x(6), first(6);
  const auto message = [&](const Tensor& a, const Tensor& b, float share) {
    return error_of([&] { run({}, ValueMixForward{a, share, b}); });
  };
  EXPECT_THAT(message(matrix(first, 3, 2), matrix(x, 2, 3), 0.5f),
              testing::HasSubstr("first is f32 (3, 2), must be f32 (2, 3)"));
  EXPECT_THAT(message(matrix(first, 2, 3), matrix(x, 2, 3), 1.0f),
              testing::HasSubstr("share is 1, must be from 0 up to below 1"));
  std::vector<Bf16> half(6);
  EXPECT_THAT(message(matrix(first, 2, 3), matrix(half, 2, 3), 0.5f),
              testing::HasSubstr("first is f32 (2, 3), must be bf16 (2, 3)"));
  EXPECT_THAT(error_of([&] {
                run({}, ValueMixBackward{0.5f, true, matrix(half, 2, 3), matrix(half, 2, 3)});
              }),
              testing::HasSubstr("d_first is bf16 (2, 3), must be f32 (2, 3)"));
}

}  // namespace
}  // namespace longstride
