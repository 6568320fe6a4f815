// A run that diverges is noticed within ten steps, healthy noise is not.
#include "longstride/train/loss_watch.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/rng.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

double noise(uint64_t step) { return RandomStream{5, 0, 0}.normal(step); }
double healthy(int64_t step) { return 2 + 6 * std::exp(-static_cast<double>(step) / 50); }

TEST(LossWatch, ARiseIsNoticedWithinTenSteps) {
  LossWatch watch;
  for (int64_t step = 0; step < 200; ++step) EXPECT_FALSE(watch.add(healthy(step) + 0.1 * noise(step)));
  int64_t late = 1;
  std::optional<LossWatch::Rise> rise;
  while (late <= 10 && !(rise = watch.add(4.5))) ++late;
  ASSERT_TRUE(rise);
  EXPECT_NEAR(rise->from, 2.1, 0.2);
  for (int64_t step = 0; step < 50; ++step) EXPECT_FALSE(watch.add(7)) << "said twice";
}

TEST(LossWatch, MoreThanUniformIsNoticedFromTheStart) {
  LossWatch watch;
  int64_t step = 1;
  while (step <= 10 && !watch.add(9)) ++step;
  EXPECT_LE(step, 10);
}

TEST(LossWatch, NoiseAndSpikesAreHealthy) {
  for (const double size : {0.1, 0.5, 1.0}) {
    LossWatch watch;
    for (int64_t step = 0; step < 20000; ++step)
      ASSERT_FALSE(watch.add(healthy(step) - 0.5 + size * noise(step))) << size << ", step " << step;
  }
  LossWatch watch;
  for (int64_t step = 0; step < 1000; ++step)
    ASSERT_FALSE(watch.add(healthy(step) + (step % 50 == 49 ? 3 : 0))) << step;
}

TEST(LossWatch, WhatWasBeforeARestartIsForgotten) {
  LossWatch watch;
  for (int64_t step = 0; step < 100; ++step) watch.add(1);
  watch.restart();
  for (int64_t step = 0; step < 100; ++step) EXPECT_FALSE(watch.add(4));
}

using LossWatchTest = TrainerTest;

TEST_F(LossWatchTest, ARunThatDivergesSaysWhatToLower) {
  config_.train.steps = 60;
  config_.train.learning_rate = 0.5;
  config_.train.warmup = 1;
  // A course like this is chaotic: on some machines it ends in infinity, which says the same.
  try {
    train("a", config_);
    EXPECT_THAT(notes_, testing::ContainsRegex("warning    step [0-9]+: the loss has risen from"));
  } catch (const Error& error) {
    notes_ += error.what();
  }
  EXPECT_THAT(notes_, testing::HasSubstr("with a lower train.learning_rate or a longer train.warmup"));
  notes_.clear();
  config_.train.learning_rate = 3e-3;
  train("b", config_);
  EXPECT_THAT(notes_, testing::Not(testing::HasSubstr("diverge")));
}

}  // namespace
}  // namespace longstride
