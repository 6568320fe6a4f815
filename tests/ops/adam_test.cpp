#include "longstride/ops/adam.h"

#include <cmath>

#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Adam, AgreesWithTheReference) { expect_all_pass(verify::check_adam({}, verify::Effort::thorough)); }

TEST(Adam, TheFirstStepMovesByTheRate) {
  // After one step both bias corrections cancel: w moves by rate * sign(g), whatever the size of g.
  std::vector<float> w{1, 1, 1}, g{5, -0.01f, 0}, m(3), v(3), average{0, 0, 0};
  AdamStep step;
  step.rate = 0.125;
  step.ema = 0.75;
  run({}, AdamUpdate{step, flat(w), flat(g), flat(m), flat(v), flat(average), {}});
  EXPECT_THAT(w, testing::Pointwise(testing::FloatNear(1e-6f), {0.875f, 1.125f, 1.0f}));
  EXPECT_NEAR(m[0], 0.5f, 1e-7f);    // (1 - 0.9) 5
  EXPECT_NEAR(v[0], 0.025f, 1e-8f);  // (1 - 0.999) 25
  EXPECT_NEAR(average[0], 0.21875f, 1e-6f);
}

TEST(Adam, TheSecondStepByHand) {
  // b1 = b2 = 1/2, g = 1 then 3: m = 1/2, 7/4; v = 1/2, 19/4; corrected by 1 - 1/4: 7/3 and 19/3.
  std::vector<float> w{0}, g{1}, m(1), v(1);
  AdamStep step;
  step.rate = 1;
  step.beta1 = step.beta2 = 0.5;
  run({}, AdamUpdate{step, flat(w), flat(g), flat(m), flat(v), {}, {}});
  EXPECT_FLOAT_EQ(w[0], -1.0f);
  g[0] = 6, step.gradient_scale = 0.5, step.step = 2;
  run({}, AdamUpdate{step, flat(w), flat(g), flat(m), flat(v), {}, {}});
  EXPECT_FLOAT_EQ(m[0], 1.75f);
  EXPECT_FLOAT_EQ(v[0], 4.75f);
  EXPECT_FLOAT_EQ(w[0], -1.0f - static_cast<float>(7.0 / 3 / std::sqrt(19.0 / 3)));
}

TEST(Adam, DecayIsDecoupled) {
  std::vector<float> w{2}, g{0}, m(1), v(1);
  AdamStep step;
  step.rate = 0.25, step.decay = 0.5;
  run({}, AdamUpdate{step, flat(w), flat(g), flat(m), flat(v), {}, {}});
  EXPECT_FLOAT_EQ(w[0], 2.0f - 0.25f * 0.5f * 2.0f);
  EXPECT_EQ(m[0], 0.0f);
}

TEST(Adam, RefusesWrongArguments) {
  std::vector<float> w(4), other(3);
  std::vector<Bf16> half(4);
  AdamStep step;
  const auto error = [&](const Tensor& g, const Tensor& average, const Tensor& compute) {
    return error_of([&] { run({}, AdamUpdate{step, flat(w), g, flat(w), flat(w), average, compute}); });
  };
  EXPECT_THAT(error(flat(other), {}, {}),
              testing::HasSubstr("adam_step: g is f32 (3), must be f32 of 4 elements"));
  EXPECT_THAT(error(flat(w), flat(other), {}), testing::HasSubstr("average is f32 (3)"));
  EXPECT_THAT(error(flat(w), {}, flat(w)), testing::HasSubstr("compute is f32 (4), must be bf16"));
  std::vector<F16> f16(4);
  EXPECT_EQ(error(flat(w), {}, flat(f16)), "adam_step: compute is f16, must be bf16 (f16 needs a GPU)");
  step.step = 0;
  EXPECT_THAT(error(flat(w), {}, {}), testing::HasSubstr("step is 0"));
  step.step = 1, step.beta2 = 1;
  EXPECT_THAT(error(flat(w), {}, {}), testing::HasSubstr("betas are 0.9 and 1"));
}

TEST(SumOfSquares, KnownValues) {
  std::vector<float> x{3, -4, 12};
  EXPECT_EQ(sum_of_squares({}, flat(x)), 169.0);
  std::vector<float> huge{1e30f, 1e30f};  // squares beyond f32
  EXPECT_NEAR(sum_of_squares({}, flat(huge)), 2e60, 1e54);
  x[1] = INFINITY;
  EXPECT_FALSE(std::isfinite(sum_of_squares({}, flat(x))));
}

TEST(Convert, RefusesOtherDtypes) {
  std::vector<float> x(4);
  std::vector<uint8_t> bytes(4);
  std::vector<F16> half(4);
  EXPECT_THAT(error_of([&] { run({}, Convert{flat(x), flat(bytes)}); }), testing::HasSubstr("to is u8"));
  EXPECT_EQ(error_of([&] {
              run({}, Convert{flat(x), flat(half)});
            }),
            "convert: to is f16, must be f32 or bf16 (f16 needs a GPU)");
}

}  // namespace
}  // namespace longstride
