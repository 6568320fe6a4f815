#include "longstride/ops/cross_entropy.h"

#include <cmath>

#include "longstride/ops/reference/cross_entropy.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(CrossEntropy, AgreesWithTheReference) {
  expect_all_pass(verify::check_cross_entropy({}, verify::Effort::thorough));
}

TEST(CrossEntropy, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kRows = 3, kClasses = 5;
  const std::vector<uint8_t> targets{0, 4, 2};
  const std::vector<double> logits = normal_doubles(1, kRows * kClasses);
  std::vector<double> loss(kRows), dlogits(logits.size(), NAN);
  reference::cross_entropy(logits.data(), targets.data(), kRows, kClasses, 0.3, loss.data(), dlogits.data());
  expect_near_all(dlogits,
                  complex_step_gradient(
                      [&](const std::vector<Complex>& at) {
                        std::vector<Complex> losses(kRows);
                        reference::cross_entropy<Complex>(at.data(), targets.data(), kRows, kClasses, 1,
                                                          losses.data(), nullptr);
                        return 0.3 * (losses[0] + losses[1] + losses[2]);
                      },
                      logits),
                  1e-14);
}

TEST(CrossEntropy, KnownValues) {
  // Logits log 1, log 2, log 5: probabilities 1/8, 1/4, 5/8. Equal logits: log of their number, whatever
  // their value.
  std::vector<float> logits{0, std::log(2.0f), std::log(5.0f), 1e4f, 1e4f, 1e4f, 0, -INFINITY, 0};
  std::vector<uint8_t> targets{1, 0, 2};
  std::vector<float> loss(3, NAN), dlogits(9, NAN);
  run({}, CrossEntropyForward{matrix(logits, 3, 3), flat(targets), flat(loss)});
  EXPECT_THAT(
      loss, testing::Pointwise(testing::FloatNear(1e-6f), {std::log(4.0f), std::log(3.0f), std::log(2.0f)}));
  run({}, CrossEntropyBackward{matrix(logits, 3, 3), flat(targets), 8.0f, flat(loss), matrix(dlogits, 3, 3)});
  EXPECT_THAT(dlogits, testing::Pointwise(testing::FloatNear(2e-6f), {1.0f, -6.0f, 5.0f, -16.0f / 3, 8.0f / 3,
                                                                      8.0f / 3, 4.0f, 0.0f, -4.0f}));
}

TEST(CrossEntropy, NanStaysInItsRow) {
  for (int at : {0, 20, 39}) {
    std::vector<float> logits(3 * 40, 1.0f), loss(3), dlogits(120);
    logits[40 + at] = NAN;
    std::vector<uint8_t> targets{0, 1, 2};
    run({},
        CrossEntropyBackward{matrix(logits, 3, 40), flat(targets), 1.0f, flat(loss), matrix(dlogits, 3, 40)});
    for (int i = 0; i < 120; ++i) EXPECT_EQ(std::isnan(dlogits[i]), i / 40 == 1) << i;
    EXPECT_TRUE(!std::isnan(loss[0]) && std::isnan(loss[1]) && !std::isnan(loss[2]));
  }
}

TEST(CrossEntropy, RefusesTargetsOutOfRange) {
  std::vector<float> logits(6), loss(2, 7.0f), dlogits(6, 7.0f);
  std::vector<uint8_t> targets{2, 3};
  EXPECT_THAT(error_of([&] {
                run({}, CrossEntropyForward{matrix(logits, 2, 3), flat(targets), flat(loss)});
              }),
              testing::HasSubstr("cross_entropy_forward: targets[1] is 3, must be below 3"));
  EXPECT_THAT(error_of([&] {
                run({}, CrossEntropyBackward{matrix(logits, 2, 3), flat(targets), 1.0f, flat(loss),
                                             matrix(dlogits, 2, 3)});
              }),
              testing::HasSubstr("targets[1] is 3"));
  EXPECT_THAT(loss, testing::Each(7.0f));
  EXPECT_THAT(dlogits, testing::Each(7.0f));
  EXPECT_THAT(error_of([&] {
                run({}, CrossEntropyForward{matrix(logits, 3, 2), flat(targets), flat(loss)});
              }),
              testing::HasSubstr("targets is u8 (2), must be u8 (3)"));
}

}  // namespace
}  // namespace longstride
