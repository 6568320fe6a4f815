#include "longstride/ops/residual.h"

#include <cmath>

#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Residual, AgreesWithTheReferenceAndWithTheTwoOps) {
  expect_all_pass(verify::check_residual({}, verify::Effort::thorough));
}

TEST(Residual, RefusesWrongTensors) {
  std::vector<float> x(12), gain(4), bias(4), y(12), mean(3), rstd(3);
  std::vector<Bf16> branch(12), short_branch(8);
  ResidualForward t{matrix(x, 3, 4), matrix(branch, 3, 4), {},         flat(gain), flat(bias), 1e-5f,
                    matrix(y, 3, 4), matrix(x, 3, 4),      flat(mean), flat(rstd)};
  EXPECT_THAT(error_of([&] { run({}, t); }),
              testing::HasSubstr("residual_forward: normed is f32 (3, 4), must be bf16 (3, 4)"));
  t.branch = matrix(short_branch, 2, 4);
  EXPECT_THAT(error_of([&] { run({}, t); }),
              testing::HasSubstr("branch is bf16 (2, 4), must be bf16 (3, 4)"));
  ResidualBackward b;
  b.dy = b.dbranch = matrix(branch, 3, 4), b.x = matrix(x, 3, 4), b.gain = flat(gain);
  b.mean = flat(mean), b.rstd = flat(rstd), b.dx = matrix(y, 3, 4), b.dgain = flat(gain);
  b.dbias = flat(bias);
  EXPECT_THAT(error_of([&] { run({}, b); }), testing::HasSubstr("scratch"));
  b.dropout.probability = 1;
  EXPECT_THAT(error_of([&] { run({}, b); }), testing::HasSubstr("probability is 1"));
}

}  // namespace
}  // namespace longstride
