#include "longstride/ops/linear.h"

#include <cmath>

#include "longstride/ops/cpu/bf16_products.h"
#include "longstride/ops/reference/linear.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Linear, AgreesWithTheReference) { expect_all_pass(verify::check_linear({}, verify::Effort::thorough)); }

TEST(Linear, AgreesWithoutBf16Hardware) {
  cpu::use_bf16_hardware(false);
  EXPECT_EQ(linear_scratch_bytes({}, 2, 32, 32, DType::bf16), (2 * 32 + 2 * 32 + 32 * 32) * 4);
  expect_all_pass(verify::check_linear({}, verify::Effort::quick));
  cpu::use_bf16_hardware(true);
}

TEST(Linear, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kM = 3, kK = 4, kN = 5;
  const std::vector<double> x = normal_doubles(1, kM * kK), w = normal_doubles(2, kN * kK),
                            b = normal_doubles(3, kN);
  const std::vector<double> dy = normal_doubles(4, kM * kN);
  const auto loss = [&](const std::vector<Complex>& at_x, const std::vector<Complex>& at_w,
                        const std::vector<Complex>& at_b) {
    std::vector<Complex> y(kM * kN);
    reference::linear_forward(at_x.data(), at_w.data(), at_b.data(), kM, kK, kN, y.data());
    return dot(y, complexified(dy));
  };
  std::vector<double> dx(kM * kK, NAN), dw(kN * kK), db(kN);
  reference::linear_backward_input(dy.data(), w.data(), kM, kK, kN, dx.data());
  reference::linear_backward_weight(dy.data(), x.data(), kM, kK, kN, dw.data());
  reference::linear_backward_bias(dy.data(), kM, kN, db.data());
  const std::vector<Complex> cx = complexified(x), cw = complexified(w), cb = complexified(b);
  expect_near_all(dx, complex_step_gradient([&](const auto& at) { return loss(at, cw, cb); }, x), 1e-13);
  expect_near_all(dw, complex_step_gradient([&](const auto& at) { return loss(cx, at, cb); }, w), 1e-13);
  expect_near_all(db, complex_step_gradient([&](const auto& at) { return loss(cx, cw, at); }, b), 1e-13);
}

TEST(Linear, KnownValues) {
  std::vector<float> x{1, 2, 3, 4, 5, 6}, w{1, 0, -1, 2, 1, 0}, b{10, 20}, y(4, NAN);  // x (2, 3), w (2, 3)
  run({}, LinearForward{matrix(x, 2, 3), matrix(w, 2, 3), flat(b), matrix(y, 2, 2)});
  EXPECT_THAT(y, testing::ElementsAre(8, 24, 8, 33));
  std::vector<float> dy{1, 2, 3, 4}, dx(6, NAN), dw(6, 1.0f), db{1, 1};
  run({}, LinearBackwardInput{matrix(dy, 2, 2), matrix(w, 2, 3), matrix(dx, 2, 3)});
  EXPECT_THAT(dx, testing::ElementsAre(5, 2, -1, 11, 4, -3));
  run({}, LinearBackwardWeight{matrix(dy, 2, 2), matrix(x, 2, 3), DType::f32, matrix(dw, 2, 3), flat(db)});
  EXPECT_THAT(dw, testing::ElementsAre(14, 18, 22, 19, 25, 31));
  EXPECT_THAT(db, testing::ElementsAre(5, 7));
}

TEST(Linear, RoundsXToBf16WithABf16Weight) {
  // 1 + 2^-8 lies halfway between two bf16 values and goes to the even one, 1.
  std::vector<float> x{1.00390625f}, y(1, NAN);
  std::vector<Bf16> w{Bf16(3.0f)};
  Arena scratch({}, linear_scratch_bytes({}, 1, 1, 1, DType::bf16));
  run({{}, &scratch}, LinearForward{matrix(x, 1, 1), matrix(w, 1, 1), {}, matrix(y, 1, 1)});
  EXPECT_EQ(y[0], 3.0f);
  EXPECT_EQ(scratch.used(), 0);
}

TEST(Linear, Bf16TensorsNeedNoScratchWhereTheHardwareMultipliesThem) {
  const int64_t bytes = linear_scratch_bytes({}, 8, 32, 32, DType::bf16, DType::bf16);
  cpu::use_bf16_hardware(false);
  EXPECT_EQ(linear_scratch_bytes({}, 8, 32, 32, DType::bf16, DType::bf16), (8 * 32 + 8 * 32 + 32 * 32) * 4);
  cpu::use_bf16_hardware(true);
  EXPECT_EQ(linear_scratch_bytes({}, 8, 32, 32, DType::f32, DType::f32), 0);
  if (cpu_has_bf16()) {
    EXPECT_EQ(bytes, 0);
  }
}

TEST(Linear, RefusesWrongTensors) {
  std::vector<float> x(6), w(6), b(3), y(4);
  std::vector<Bf16> half(6);
  std::vector<F16> f16(6);
  std::vector<uint8_t> bytes(6);
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{matrix(x, 3, 2), matrix(w, 2, 3), {}, matrix(y, 2, 2)});
              }),
              testing::HasSubstr("linear_forward: x is f32 (3, 2), must be f32 (any, 3)"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{matrix(x, 2, 3), matrix(w, 2, 3), flat(b), matrix(y, 2, 2)});
              }),
              testing::HasSubstr("b is f32 (3), must be f32 (2)"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{matrix(x, 2, 3), matrix(bytes, 2, 3), {}, matrix(y, 2, 2)});
              }),
              testing::HasSubstr("w is u8, must be f32 or bf16"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{matrix(x, 2, 3), matrix(half, 2, 3), {}, matrix(y, 2, 2)});
              }),
              testing::HasSubstr("scratch"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{matrix(half, 2, 3), matrix(w, 2, 3), {}, matrix(y, 2, 2)});
              }),
              testing::HasSubstr("x is bf16 (2, 3), must be f32 (any, 3)"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearBackwardInput{matrix(y, 2, 2), matrix(w, 2, 3), matrix(half, 2, 3)});
              }),
              testing::HasSubstr("dx is bf16 (2, 3), must be f32 (2, 3)"));
  EXPECT_THAT(
      error_of([&] {
        run({}, LinearBackwardWeight{matrix(y, 2, 2), matrix(half, 2, 3), DType::f32, matrix(w, 2, 3), {}});
      }),
      testing::HasSubstr("x is bf16 (2, 3), must be f32 (2, any)"));
  EXPECT_THAT(error_of([&] {
                run({}, LinearBackwardInput{matrix(y, 2, 2), matrix(w, 2, 3), matrix(x, 3, 2)});
              }),
              testing::HasSubstr("dx is f32 (3, 2), must be f32 (2, 3)"));
  EXPECT_THAT(
      error_of([&] {
        run({}, LinearBackwardWeight{matrix(y, 2, 2), matrix(x, 2, 3), DType::f16, matrix(w, 2, 3), {}});
      }),
      testing::HasSubstr("product is f16"));
  EXPECT_EQ(error_of([&] {
              run({}, LinearForward{matrix(x, 2, 3), matrix(f16, 2, 3), {}, matrix(y, 2, 2)});
            }),
            "linear_forward: w is f16, must be f32 or bf16 (f16 needs a GPU)");
  Tensor across = matrix(x, 2, 3);
  across.stride = {1, 2};
  EXPECT_THAT(error_of([&] {
                run({}, LinearForward{across, matrix(w, 2, 3), {}, matrix(y, 2, 2)});
              }),
              testing::HasSubstr("2 elements apart"));
}

}  // namespace
}  // namespace longstride
