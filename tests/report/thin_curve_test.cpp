#include "longstride/report/thin_curve.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longstride {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(ThinCurve, AShortCurveStaysAsItIs) {
  ThinCurve curve;
  for (int64_t step = 10; step <= 100; step += 10) curve.add(step, static_cast<double>(step % 30));
  const auto samples = curve.samples();
  ASSERT_EQ(samples.size(), 10u);
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].step, static_cast<int64_t>(10 * (i + 1)));
    EXPECT_EQ(samples[i].value, static_cast<double>(samples[i].step % 30));
  }
}

TEST(ThinCurve, ALongOneKeepsItsPeaksAndItsOrderInBoundedMemory) {
  ThinCurve curve;
  for (int64_t step = 0; step < 3'000'000; ++step)
    curve.add(step, step == 1'234'567 ? 99.0 : step == 2'345'678 ? -99.0 : std::sin(step));
  const auto samples = curve.samples();
  EXPECT_LE(std::ssize(samples), 2 * ThinCurve::kMostStretches + 2);
  EXPECT_GE(std::ssize(samples), ThinCurve::kMostStretches / 2);
  bool peak = false, hole = false;
  for (size_t i = 0; i < samples.size(); ++i) {
    EXPECT_LT(i > 0 ? samples[i - 1].step : -1, samples[i].step);
    peak |= samples[i].step == 1'234'567 && samples[i].value == 99.0;
    hole |= samples[i].step == 2'345'678 && samples[i].value == -99.0;
  }
  EXPECT_TRUE(peak);
  EXPECT_TRUE(hole);
  EXPECT_EQ(samples.front().step, 0);
  EXPECT_EQ(samples.back().step, 2'999'999);
  EXPECT_EQ(curve.lowest().step, 2'345'678);
}

TEST(ThinCurve, ValuesThatAreNotFiniteAreGaps) {
  ThinCurve curve;
  curve.add(1, 2.0), curve.add(2, kNaN), curve.add(3, std::numeric_limits<double>::infinity()),
      curve.add(4, 1.0);
  EXPECT_EQ(curve.not_finite(), 2);
  EXPECT_EQ(curve.first_not_finite(), 2);
  const auto samples = curve.samples();
  ASSERT_GE(samples.size(), 3u);
  EXPECT_EQ(samples.front().value, 2.0);
  EXPECT_TRUE(std::isnan(samples[1].value));
  EXPECT_EQ(samples.back().value, 1.0);
  ThinCurve nothing;
  nothing.add(5, kNaN);
  EXPECT_EQ(nothing.last().step, -1);
  for (const auto& sample : nothing.samples()) EXPECT_TRUE(std::isnan(sample.value));
}

TEST(ThinCurve, HugeStepsAreNoProblem) {
  ThinCurve curve;
  for (int64_t i = 0; i < 5000; ++i) curve.add(i * 1'000'000'000'000, 1.0);
  EXPECT_LE(std::ssize(curve.samples()), 2 * ThinCurve::kMostStretches + 2);
}

TEST(ThinClock, KeepsTheLastOfEachStretch) {
  ThinClock clock;
  for (int64_t step = 1; step <= 100'000; ++step)
    clock.add({step, static_cast<double>(step) * 64, static_cast<double>(step) / 10});
  EXPECT_LE(std::ssize(clock.samples()), ThinClock::kMostSamples);
  EXPECT_EQ(clock.samples().back().step, 100'000);
  for (const ClockSample& sample : clock.samples())
    EXPECT_EQ(sample.bytes, static_cast<double>(sample.step) * 64);
}

}  // namespace
}  // namespace longstride
