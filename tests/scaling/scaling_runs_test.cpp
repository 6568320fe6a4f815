#include "longstride/scaling/scaling_runs.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/scaling/scaling_plot.h"

namespace longstride {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

ScalingRun point(double parameters, double bytes, double loss) {
  ScalingRun run;
  run.path = "runs/a<b";
  run.parameters = parameters, run.bytes = bytes, run.flops = 6 * parameters * bytes, run.loss = loss;
  return run;
}

TEST(ScalingRuns, OfTheSameAmountTheBestCounts) {
  const std::vector<ScalingRun> runs{point(10, 100, 5), point(10, 200, 4), point(20, 100, 4.5),
                                     point(20, 200, 3)};
  EXPECT_THAT(runs_for_law(runs, Resource::parameters), ElementsAre(1, 3));
  EXPECT_THAT(runs_for_law(runs, Resource::data), ElementsAre(2, 3));
  // Twice the compute for a worse loss is no part of what compute can reach.
  const std::vector<ScalingRun> worse{point(10, 100, 3), point(20, 100, 4), point(40, 100, 2)};
  EXPECT_THAT(runs_for_law(worse, Resource::compute), ElementsAre(0, 2));
}

TEST(ScalingRuns, TooFewAreNoLaw) {
  const std::vector<ScalingRun> runs{point(1, 1, 5), point(2, 1, 4), point(3, 1, 3), point(3, 2, 2.9)};
  const ScalingLaw law = fit_scaling_law(runs, Resource::parameters);
  EXPECT_FALSE(law.fit);
  EXPECT_THAT(law.why_not, HasSubstr("3 runs with different parameters, at least 4"));
  EXPECT_THAT(scaling_plot(runs, {law}), IsEmpty());
}

TEST(ScalingRuns, ThePlotHasEveryRunAndIsText) {
  std::vector<ScalingRun> runs;
  for (int i = 0; i < 6; ++i) {
    const double parameters = 1e5 * std::pow(2, i);
    runs.push_back(point(parameters, 1e6, 1 + std::pow(1e6 / parameters, 0.3)));
  }
  const ScalingLaw law = fit_scaling_law(runs, Resource::parameters);
  ASSERT_TRUE(law.fit);
  EXPECT_EQ(formula_of(law).substr(0, 8), "L(N) = 1");
  const std::string plot = scaling_plot(runs, {law, fit_scaling_law(runs, Resource::data)});
  EXPECT_EQ(plot, scaling_plot(runs, {law}));  // what was not fitted has no panel
  size_t circles = 0;
  for (size_t at = 0; (at = plot.find("<circle", at)) != std::string::npos; ++at) ++circles;
  EXPECT_EQ(circles, runs.size());
  EXPECT_THAT(plot, HasSubstr("runs/a&lt;b"));
  EXPECT_THAT(plot, Not(HasSubstr("nan")));
  EXPECT_THAT(plot, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace longstride
