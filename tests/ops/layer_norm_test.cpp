#include "longstride/ops/layer_norm.h"

#include <cmath>

#include "longstride/ops/reference/layer_norm.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(LayerNorm, AgreesWithTheReference) {
  expect_all_pass(verify::check_layer_norm({}, verify::Effort::thorough));
}

TEST(LayerNorm, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kRows = 3, kWidth = 7;
  constexpr double kEpsilon = 1e-2;
  const std::vector<double> x = normal_doubles(1, kRows * kWidth), dy = normal_doubles(2, kRows * kWidth);
  const std::vector<double> gain = normal_doubles(3, kWidth), bias = normal_doubles(4, kWidth);
  const auto loss = [&](const std::vector<Complex>& at_x, const std::vector<Complex>& at_gain,
                        const std::vector<Complex>& at_bias) {
    std::vector<Complex> y(x.size()), mean(kRows), rstd(kRows);
    reference::layer_norm_forward(at_x.data(), at_gain.data(), at_bias.data(), Complex(kEpsilon), kRows,
                                  kWidth, y.data(), mean.data(), rstd.data());
    return dot(y, complexified(dy));
  };
  std::vector<double> y(x.size()), mean(kRows), rstd(kRows), dx(x.size(), 1.0), dgain(kWidth, 2.0),
      dbias(kWidth, 3.0);
  reference::layer_norm_forward(x.data(), gain.data(), bias.data(), kEpsilon, kRows, kWidth, y.data(),
                                mean.data(), rstd.data());
  reference::layer_norm_backward(dy.data(), x.data(), gain.data(), mean.data(), rstd.data(), kRows, kWidth,
                                 dx.data(), dgain.data(), dbias.data());
  const auto plus = [](std::vector<double> values, double added) {
    for (double& value : values) value += added;
    return values;
  };
  const std::vector<Complex> cx = complexified(x), cgain = complexified(gain), cbias = complexified(bias);
  expect_near_all(
      dx, plus(complex_step_gradient([&](const auto& at) { return loss(at, cgain, cbias); }, x), 1), 1e-13);
  expect_near_all(dgain,
                  plus(complex_step_gradient([&](const auto& at) { return loss(cx, at, cbias); }, gain), 2),
                  1e-13);
  expect_near_all(dbias,
                  plus(complex_step_gradient([&](const auto& at) { return loss(cx, cgain, at); }, bias), 3),
                  1e-13);
}

TEST(LayerNorm, KnownValues) {
  // Mean 5, variance 5: (x - 5) / sqrt(5) without epsilon.
  std::vector<float> x{2, 4, 6, 8}, gain{1, 1, 2, 1}, bias{0, 1, 0, 0}, y(4, NAN), mean(1, NAN), rstd(1, NAN);
  run({}, LayerNormForward{matrix(x, 1, 4), flat(gain), flat(bias), 0.0f, matrix(y, 1, 4), flat(mean),
                           flat(rstd)});
  EXPECT_FLOAT_EQ(mean[0], 5.0f);
  EXPECT_FLOAT_EQ(rstd[0], 0.4472136f);
  EXPECT_THAT(
      y, testing::Pointwise(testing::FloatNear(1e-6f), {-1.3416408f, 0.5527864f, 0.8944272f, 1.3416408f}));
}

TEST(LayerNorm, NanStaysInItsRow) {
  std::vector<float> x(3 * 20, 1.0f), gain(20, 1.0f), bias(20, 0.5f), y(60), mean(3), rstd(3);
  x[25] = NAN;
  run({}, LayerNormForward{matrix(x, 3, 20), flat(gain), flat(bias), 1e-5f, matrix(y, 3, 20), flat(mean),
                           flat(rstd)});
  for (int i = 0; i < 60; ++i) EXPECT_EQ(std::isnan(y[i]), i / 20 == 1) << i;
  EXPECT_TRUE(std::isnan(mean[1]) && std::isnan(rstd[1]));
}

TEST(LayerNorm, RefusesWrongTensors) {
  std::vector<float> x(12), gain(4), bias(3), y(12), mean(3), rstd(3);
  const auto forward = [&](const Tensor& to, const Tensor& with_bias) {
    run({}, LayerNormForward{matrix(x, 3, 4), flat(gain), with_bias, 1e-5f, to, flat(mean), flat(rstd)});
  };
  EXPECT_THAT(error_of([&] { forward(matrix(y, 3, 4), flat(bias)); }),
              testing::HasSubstr("layer_norm_forward: bias is f32 (3), must be f32 (4)"));
  EXPECT_THAT(error_of([&] { forward(matrix(y, 4, 3), flat(gain)); }),
              testing::HasSubstr("y is f32 (4, 3), must be f32 (3, 4)"));
  EXPECT_THAT(error_of([&] {
                forward(Tensor(nullptr, DType::f32, {3, 4}), flat(gain));
              }),
              testing::HasSubstr("has no memory"));
  EXPECT_THAT(error_of([&] {
                run({}, LayerNormBackward{matrix(x, 3, 4), matrix(y, 3, 4), flat(gain), flat(mean),
                                          flat(rstd), matrix(y, 3, 4), flat(gain), flat(gain)});
              }),
              testing::HasSubstr("scratch"));
}

}  // namespace
}  // namespace longstride
