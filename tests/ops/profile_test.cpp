#include "longstride/ops/profile.h"

#include <algorithm>

#include "longstride/ops/activation.h"
#include "longstride/ops/linear.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(Profile, CountsOnlyWhileItIsOn) {
  std::vector<float> x(12), y(12);
  profile_ops(true);
  profile_ops(false);
  run({}, ActivationForward{flat(x), flat(y)});
  EXPECT_TRUE(op_times().empty());
}

TEST(Profile, AddsUpTheCallsOfAnOp) {
  std::vector<float> x(12), w(8), y(6), z(12);
  profile_ops(true);
  run({}, ActivationForward{flat(x), flat(z)});
  run({}, ActivationForward{flat(x), flat(z)});
  run({}, LinearForward{matrix(x, 3, 4), matrix(w, 2, 4), {}, matrix(y, 3, 2)});
  profile_ops(false);
  std::vector<OpTime> times = op_times();
  ASSERT_EQ(times.size(), 2);
  EXPECT_GE(times[0].seconds, times[1].seconds);
  std::sort(times.begin(), times.end(), [](const OpTime& a, const OpTime& b) { return a.op < b.op; });
  EXPECT_EQ(times[0].op, "activation_forward");
  EXPECT_EQ(times[0].calls, 2);
  EXPECT_EQ(times[0].work.bytes, 2 * 2 * 12 * 4);
  EXPECT_EQ(times[1].op, "linear_forward");
  EXPECT_EQ(times[1].calls, 1);
  EXPECT_EQ(times[1].work.flops, 2 * 3 * 4 * 2);
  EXPECT_EQ(times[1].work.bytes, 4 * (12 + 8 + 6));

  profile_ops(true);
  profile_ops(false);
  EXPECT_TRUE(op_times().empty());
}

TEST(Profile, TellsCallsOfUnlikeWorkApart) {
  std::vector<float> x(12), y(12);
  profile_ops(true);
  run({}, ActivationForward{flat(x), flat(y)});
  run({}, ActivationForward{flat(x), flat(y)});
  x.resize(8), y.resize(8);
  run({}, ActivationForward{flat(x), flat(y)});
  profile_ops(false);
  std::vector<OpTime> times = op_times(true);
  ASSERT_EQ(times.size(), 2);
  std::sort(times.begin(), times.end(), [](const OpTime& a, const OpTime& b) { return a.calls > b.calls; });
  EXPECT_EQ(times[0].calls, 2);
  EXPECT_EQ(times[0].work.bytes, 2 * 2 * 12 * 4);
  EXPECT_EQ(times[1].calls, 1);
  EXPECT_EQ(times[1].work.bytes, 2 * 8 * 4);
  ASSERT_EQ(op_times().size(), 1);
  EXPECT_EQ(op_times()[0].calls, 3);
}

TEST(Profile, AnOpWithinAnOpBelongsToTheOuterOne) {
  profile_ops(true);
  {
    const OpTimer outer("outer", {});
    const OpTimer inner("inner", {});
  }
  { const OpTimer next("next", {}); }
  profile_ops(false);
  std::vector<std::string> ops;
  for (const OpTime& time : op_times()) ops.push_back(time.op);
  EXPECT_THAT(ops, testing::UnorderedElementsAre("outer", "next"));
}

TEST(Profile, AnOpThatThrowsEndsItsTimer) {
  std::vector<float> x(12), y(11);
  profile_ops(true);
  EXPECT_ANY_THROW(run({}, ActivationForward{flat(x), flat(y)}));
  run({}, ActivationForward{flat(x), flat(x)});
  profile_ops(false);
  ASSERT_EQ(op_times().size(), 1);
  EXPECT_EQ(op_times()[0].calls, 2);
}

}  // namespace
}  // namespace longstride
