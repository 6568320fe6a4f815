#include "longstride/ops/dropout.h"

#include <cmath>

#include "longstride/ops/reference/dropout.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Dropout, AgreesWithTheReference) {
  expect_all_pass(verify::check_dropout({}, verify::Effort::thorough));
}

// The lanes of the published Philox answer for counter 0 and key 0, low half of a word first.
TEST(Dropout, ReadsTheSixteenBitLanesInOrder) {
  const uint32_t lanes[8] = {0xe8d5, 0x6627, 0xc58d, 0xe169, 0xac4c, 0xbc57, 0xdbd8, 0x9b00};
  for (double probability : {0.4, 0.6, 0.75, 0.9}) {
    const Dropout dropout{{0, 0, 0}, probability};
    for (int i = 0; i < 8; ++i) EXPECT_EQ(dropout.keeps(i), lanes[i] >= probability * 65536) << i;
    std::vector<float> dy(8, 1.0f), d(8, NAN);
    run({}, DropoutBackward{flat(dy), dropout, flat(d)});
    for (int i = 0; i < 8; ++i) EXPECT_EQ(d[i] != 0, lanes[i] >= probability * 65536) << i;
  }
}

TEST(Dropout, ReferenceGradientIsTheDerivative) {
  const Dropout dropout{{5, 6, 7}, 0.4};
  const std::vector<double> x = normal_doubles(1, 50), branch = normal_doubles(2, 50),
                            dy = normal_doubles(3, 50);
  std::vector<double> dbranch(50, NAN);
  reference::dropout_backward(dy.data(), dropout, 50, dbranch.data());
  expect_near_all(dbranch,
                  complex_step_gradient(
                      [&](const std::vector<Complex>& at) {
                        const std::vector<Complex> base = complexified(x);
                        std::vector<Complex> y(50);
                        reference::dropout_add_forward(base.data(), at.data(), dropout, 50, y.data());
                        return dot(y, complexified(dy));
                      },
                      branch),
                  1e-14);
}

TEST(Dropout, KeepsTheExpectation) {
  // Half of the elements doubled: the sum of many ones stays.
  std::vector<float> ones(100000, 1.0f), zeros(100000, 0.0f), y(100000, NAN);
  run({}, DropoutAddForward{flat(zeros), flat(ones), {{1, 2, 3}, 0.5}, flat(y)});
  double sum = 0;
  for (float value : y) {
    EXPECT_TRUE(value == 0 || value == 2);
    sum += value;
  }
  EXPECT_NEAR(sum / 100000, 1, 6 / std::sqrt(100000.0));
}

TEST(Dropout, ZeroProbabilityAddsEverything) {
  std::vector<float> x{1, 2, 3}, branch{10, 20, 30}, y(3, NAN);
  run({}, DropoutAddForward{flat(x), flat(branch), {{1, 2, 3}, 0.0}, flat(y)});
  EXPECT_THAT(y, testing::ElementsAre(11, 22, 33));
}

TEST(Dropout, ADroppedNanIsGone) {
  const Dropout dropout{{9, 9, 9}, 0.5};
  std::vector<float> x(64, 1.0f), branch(64, NAN), y(64);
  run({}, DropoutAddForward{flat(x), flat(branch), dropout, flat(y)});
  for (int i = 0; i < 64; ++i) EXPECT_EQ(std::isnan(y[i]), dropout.keeps(i)) << i;
}

TEST(Dropout, RefusesWrongArguments) {
  std::vector<float> x(4), y(5);
  EXPECT_THAT(error_of([&] {
                run({}, DropoutAddForward{flat(x), flat(x), {{}, 1.0}, flat(x)});
              }),
              testing::HasSubstr("probability is 1"));
  EXPECT_THAT(error_of([&] {
                run({}, DropoutAddForward{flat(x), flat(x), {{}, -0.1}, flat(x)});
              }),
              testing::HasSubstr("probability is -0.1"));
  EXPECT_THAT(error_of([&] {
                run({}, DropoutAddForward{flat(x), flat(x), {{}, NAN}, flat(x)});
              }),
              testing::HasSubstr("probability is nan"));
  EXPECT_THAT(error_of([&] {
                run({}, DropoutAddForward{flat(x), flat(y), {{}, 0.1}, flat(x)});
              }),
              testing::HasSubstr("branch is f32 (5), must be f32 of 4 elements"));
}

}  // namespace
}  // namespace longstride
