#include "longstride/ops/activation.h"

#include <cmath>
#include <limits>

#include "longstride/device/backend.h"
#include "longstride/ops/reference/activation.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Activation, AgreesWithTheReference) {
  expect_all_pass(verify::check_activation({}, verify::Effort::thorough));
}

TEST(Activation, ReferenceGradientIsTheDerivative) {
  const std::vector<double> x = normal_doubles(1, 40), dy = normal_doubles(2, 40);
  std::vector<double> dx(x.size(), NAN);
  reference::activation_backward(dy.data(), x.data(), 40, dx.data());
  expect_near_all(dx,
                  complex_step_gradient(
                      [&](const std::vector<Complex>& at) {
                        std::vector<Complex> y(at.size());
                        reference::activation_forward(at.data(), 40, y.data());
                        return dot(y, complexified(dy));
                      },
                      x),
                  1e-14);
}

TEST(Activation, KnownValues) {
  // f(1) = 1 / (1 + e^-1.702); f'(0) = 1/2; far out f is the identity or zero.
  std::vector<float> x{0, 1, -1, 100, -100}, y(5, NAN), dx(5, NAN), dy(5, 2.0f);
  run({}, ActivationForward{flat(x), flat(y)});
  EXPECT_THAT(y, testing::Pointwise(testing::FloatNear(1e-6f), {0.0f, 0.845796f, -0.154204f, 100.0f, 0.0f}));
  run({}, ActivationBackward{flat(dy), flat(x), flat(dx)});
  EXPECT_NEAR(dx[0], 1.0f, 1e-6f);
  EXPECT_NEAR(dx[3], 2.0f, 1e-6f);
  EXPECT_NEAR(dx[4], 0.0f, 1e-6f);
}

TEST(Activation, NanStaysNan) {
  std::vector<float> x(40, 1.0f), y(40, 0.0f), dx(40, 0.0f), dy(40, 1.0f);
  x[3] = x[39] = NAN;
  run({}, ActivationForward{flat(x), flat(y)});
  run({}, ActivationBackward{flat(dy), flat(x), flat(dx)});
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(std::isnan(y[i]), i == 3 || i == 39) << i;
    EXPECT_EQ(std::isnan(dx[i]), i == 3 || i == 39) << i;
  }
}

TEST(Activation, RefusesWrongTensors) {
  std::vector<float> x(6), y(5);
  std::vector<double> wide(6);
  std::vector<Bf16> half(6);
  EXPECT_THAT(error_of([&] {
                run({}, ActivationForward{flat(x), flat(half)});
              }),
              testing::HasSubstr("y is bf16 (6), must be f32 of 6 elements"));
  EXPECT_THAT(error_of([&] {
                run({}, ActivationForward{flat(x), flat(y)});
              }),
              testing::HasSubstr("activation_forward: y is f32 (5), must be f32 of 6 elements"));
  EXPECT_THAT(error_of([&] {
                run({}, ActivationForward{flat(wide), flat(x)});
              }),
              testing::HasSubstr("x is f64, must be f32 or bf16"));
  EXPECT_THAT(error_of([&] {
                run({}, ActivationForward{matrix(x, 2, 3).columns(0, 2), flat(y)});
              }),
              testing::HasSubstr("not contiguous"));
  EXPECT_THAT(error_of([&] {
                run({{DeviceKind::cuda, 0}, nullptr}, ActivationForward{flat(x), flat(x)});
              }),
              testing::HasSubstr(is_built(DeviceKind::cuda) ? "x is on a different device from cuda:0"
                                                            : "built without CUDA"));
}

TEST(Activation, F16NeedsAGpu) {
  std::vector<F16> x(6);
  EXPECT_EQ(error_of([&] {
              run({}, ActivationForward{flat(x), flat(x)});
            }),
            "activation_forward: x is f16, must be f32 or bf16 (f16 needs a GPU)");
}

}  // namespace
}  // namespace longstride
