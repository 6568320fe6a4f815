#include "longstride/ops/ordered_sum.h"

#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(OrderedSum, AgreesWithTheReference) {
  expect_all_pass(verify::check_ordered_sum({}, verify::Effort::thorough));
}

// In f32, 2^24 + 1 is 2^24: what is added when decides the sum.
TEST(OrderedSum, AddsFromTheLeft) {
  const float big = 16777216;
  const auto sum_at = [&](int64_t place) {
    std::vector<float> parts{1, big, -big}, sum{1};
    run({}, OrderedSum{matrix(parts, 3, 1), place, flat(sum)});
    return sum[0];
  };
  EXPECT_EQ(sum_at(0), 2);  // ((1 + 1) + big) - big
  EXPECT_EQ(sum_at(1), 2);
  EXPECT_EQ(sum_at(2), 0);  // ((1 + big) + 1) - big
  EXPECT_EQ(sum_at(3), 1);  // ((1 + big) - big) + 1
}

TEST(OrderedSum, RefusesWrongTensors) {
  std::vector<float> parts(6), sum(3);
  EXPECT_THAT(error_of([&] {
                run({}, OrderedSum{matrix(parts, 3, 2), 0, flat(sum)});
              }),
              testing::HasSubstr("sum is f32 (3), must be f32 (2)"));
  EXPECT_THAT(error_of([&] {
                run({}, OrderedSum{matrix(parts, 2, 3), 3, flat(sum)});
              }),
              testing::HasSubstr("place is 3, must be from 0 to 2"));
}

}  // namespace
}  // namespace longstride
