// The planner: steps are measured and scaled, and what fits is the largest that does.
#include "longstride/train/step_time.h"

#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/run/stages.h"
#include "longstride/train/fit.h"
#include "longstride/train/memory.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

constexpr int64_t kRoom = int64_t{1} << 30;

RunConfig small_config() {
  RunConfig config;
  config.model.context = 256, config.model.layers = 4, config.model.heads = 2, config.model.width = 32;
  config.model.pattern = "fixed:16,4";
  config.train.batch = 4;
  config.compute.device = "cpu";
  return config;
}

TEST(StepTime, ASmallModelIsMeasuredWhole) {
  const StepTime time = measure_step_time(small_config(), kRoom, 60);  // it stops after 50 steps
  EXPECT_EQ(time.layers, 4);
  EXPECT_EQ(time.sequences, 4);
  EXPECT_EQ(time.context, 256);
  EXPECT_GT(time.attention, 0);
  EXPECT_GT(time.update, 0);
  EXPECT_GT(time.seconds, time.attention + time.update);
}

TEST(StepTime, WhatWouldTakeTooLongIsScaledFromLess) {
  RunConfig config = small_config();
  config.model.layers = 64;
  config.train.batch = 64;
  const StepTime part = measure_step_time(config, kRoom, 0.2);
  EXPECT_LT(part.layers * part.sequences, 64 * 64);
  config.train.batch = 32;
  // Other processes may slow down either of the two.
  const StepTime half = measure_step_time(config, kRoom, 0.2);
  EXPECT_GT(part.seconds, half.seconds / 2);
  EXPECT_LT(part.seconds, half.seconds * 8);
}

// Where not even a part with many layers can be paid for, two cycles and one tell what a layer costs.
TEST(StepTime, LayersAreScaledHoweverLittleIsMeasured) {
  RunConfig config = small_config();
  config.model.layers = 3;
  // A busy machine may take a pause in the one step that is measured, but not each time.
  double ratio = 0;
  for (int tries = 0; tries < 10 && !(ratio > 1.0 / 6 && ratio < 6); ++tries) {
    const double whole = measure_step_time(config, kRoom, 60).seconds;
    const StepTime part = measure_step_time(config, kRoom, 1e-9);
    EXPECT_EQ(part.layers, 2);
    EXPECT_EQ(part.sequences, 1);
    EXPECT_GT(part.attention, 0);
    ratio = part.seconds / whole;
  }
  EXPECT_GT(ratio, 1.0 / 6);
  EXPECT_LT(ratio, 6);
}

TEST(StepTime, StagesWithShorterContextsAreMeasuredToo) {
  RunConfig config = small_config();
  config.model.context = 2048;
  config.train.context_schedule = "1024 until 0.5";
  for (const char* positions : {"paper", "rotary"}) {
    config.model.positions = positions;
    config.check();
    for (const Stage& stage : stages_of(config)) {
      EXPECT_GT(measure_step_time(stage.config, kRoom, 0.2).seconds, 0) << positions;
      EXPECT_GT(measure_step_time(stage.config, kRoom, 1e-9).seconds, 0) << positions;
    }
  }
}

TEST(StepTime, WithoutRoomNothingIsMeasured) {
  EXPECT_THROW(measure_step_time(small_config(), 1000, 1), Error);
}

TEST(StepTime, IsKeptForTheSameQuestion) {
  const TemporaryFolder folder;
  RunConfig config = small_config();
  config.data.cache = folder / "cache";
  const StepTime first = step_time(config, kRoom, false);
  config.train.steps += 1;  // a longer run has the same steps
  EXPECT_EQ(step_time(config, kRoom, false), first);
  EXPECT_NE(step_time(config, kRoom, true).seconds, first.seconds);
  config.model.width = 64;
  EXPECT_NE(step_time(config, kRoom, false), first);
}

TEST(Fit, FindsTheLargest) {
  const RunConfig config = small_config();
  for (const Extent extent : {Extent::batch, Extent::context, Extent::layers}) {
    const auto larger = largest_that_fits(config, extent, int64_t{64} << 20);
    ASSERT_TRUE(larger.has_value());
    EXPECT_GT(extent_of(*larger, extent), extent_of(config, extent));
    const int64_t needed = training_memory(*larger).total();
    EXPECT_LE(needed, int64_t{64} << 20);
    // With the very bytes it needs it fits, with one less it does not.
    EXPECT_EQ(extent_of(*largest_that_fits(config, extent, needed), extent), extent_of(*larger, extent));
    EXPECT_LT(extent_of(*largest_that_fits(config, extent, needed - 1), extent), extent_of(*larger, extent));
  }
  EXPECT_FALSE(largest_that_fits(config, Extent::batch, 1000).has_value());
}

}  // namespace
}  // namespace longstride
