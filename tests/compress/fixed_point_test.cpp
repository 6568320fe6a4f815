// Numbers in fixed point, and sums of small integers, beside doubles and plain loops.
#include "longstride/compress/portable/fixed_point.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"
#include "longstride/compress/portable/integer_model.h"
#include "longstride/compress/portable/whole_product.h"
#include "longstride/model/rotary.h"
#include "longstride/ops/reference/activation.h"

#include "tests/support/random_model.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using portable::Fixed;
using portable::fixed_of;
using portable::kFraction;
using support::small_config;

double real(Fixed value, int bits = kFraction) { return std::ldexp(static_cast<double>(value), -bits); }

TEST(FixedPoint, IsTheNearestNumber) {
  EXPECT_EQ(fixed_of(1.0), Fixed{1} << kFraction);
  EXPECT_EQ(fixed_of(-0.75), -(Fixed{3} << (kFraction - 2)));
  EXPECT_EQ(fixed_of(std::ldexp(1.5, -kFraction)), 2);
  EXPECT_EQ(fixed_of(std::ldexp(-1.5, -kFraction)), -2);
  EXPECT_EQ(fixed_of(std::ldexp(1.0, -kFraction - 2)), 0);
  EXPECT_EQ(fixed_of(0.0), 0);
  EXPECT_EQ(fixed_of(-0.0), 0);
  EXPECT_EQ(fixed_of(1e-320), 0);
  EXPECT_EQ(fixed_of(1e30), portable::kMost);
  EXPECT_EQ(fixed_of(-1e300), -portable::kMost);
  EXPECT_EQ(fixed_of(1.0, 9, int64_t{1} << 62), 512);
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL})
    EXPECT_THAT(message_of<Error>([&] { fixed_of(bad); }), ::testing::HasSubstr("not finite"));
}

TEST(FixedPoint, ShiftsRound) {
  EXPECT_EQ(portable::shifted(5, 1), 3);
  EXPECT_EQ(portable::shifted(-5, 1), -2);
  EXPECT_EQ(portable::shifted(7, 0), 7);
  EXPECT_EQ(portable::shifted(7, 63), 0);
  EXPECT_EQ(portable::shifted(-7, 200), 0);
  EXPECT_EQ(portable::shifted(-7, -2), -28);
  EXPECT_EQ(portable::shifted(3, -61), int64_t{1} << 62);
  EXPECT_EQ(portable::shifted(-3, -300), -(int64_t{1} << 62));
  EXPECT_EQ(portable::shifted(int64_t{1} << 62, 62), 1);
}

TEST(FixedPoint, RowsShareAnExponent) {
  const std::vector<Fixed> row{0, 1, -3, 40000, -70000};
  std::vector<int16_t> whole(row.size());
  const int exponent = portable::to_whole(row, 15, whole.data());
  EXPECT_EQ(exponent, 2);
  EXPECT_THAT(whole, ::testing::ElementsAre(0, 0, -1, 10000, -17500));
  const std::vector<Fixed> most{65535, -65536};
  EXPECT_EQ(portable::to_whole(most, 15, whole.data()), 2);
  EXPECT_EQ(whole[0], 16384);
  const std::vector<Fixed> rounds_up{32767 * 2 + 1};
  EXPECT_EQ(portable::to_whole(rounds_up, 15, whole.data()), 1);
  EXPECT_EQ(whole[0], 32767);
}

TEST(FixedPoint, NormalisesAsTheDefinition) {
  const RandomStream random{1, 2, 3};
  for (const int64_t width : {1, 2, 24, 129, 4096})
    for (const double size : {0.0, 1e-4, 0.02, 1.0, 300.0, 60000.0})
      for (const bool centred : {false, true}) {
        std::vector<Fixed> x(static_cast<size_t>(width)), y(x.size());
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < width; ++i) x[i] = fixed_of(size * (random.normal(i) + 0.5));
        for (const Fixed value : x) mean += centred ? real(value) / static_cast<double>(width) : 0;
        for (const Fixed value : x) squares += (real(value) - mean) * (real(value) - mean);
        const double root = std::sqrt(squares / static_cast<double>(width) + 1e-5);
        portable::normalise(x, centred, portable::kEpsilon5, y.data());
        for (int64_t i = 0; i < width; ++i)
          ASSERT_NEAR(real(y[i]), (real(x[i]) - mean) / root, 1e-5 * std::sqrt(static_cast<double>(width)))
              << width << " " << size << " " << centred << " " << i;
      }
}

TEST(FixedPoint, ActivationIsThatOfTheReference) {
  for (double x = -40; x < 40; x += 0.013) {
    double expected = 0;
    reference::activation_forward(&x, 1, &expected);
    EXPECT_NEAR(real(portable::Activation::get()(fixed_of(x))), expected, 2e-6 * std::max(1.0, std::abs(x)))
        << x;
  }
  EXPECT_EQ(portable::Activation::get()(portable::kMost), portable::kMost);
  EXPECT_NEAR(real(portable::Activation::get()(-portable::kMost)), 0, 0.02);
}

void expect_angles(ModelConfig config, int64_t count) {
  config.positions = "rotary";
  const RotaryAngles angles(config);
  const std::vector<portable::Turn> rotation = integer_rotation(config, count);
  const int64_t half = config.qk_head() / 2;
  for (int64_t i = 0; i < count; i += 1 + i / 7)
    for (int64_t pair = 0; pair < half; ++pair) {
      const portable::Turn turn = rotation[i * half + pair];
      EXPECT_NEAR(real(turn.cosine, portable::kTurnBits), std::cos(angles(i, pair)), 2e-6)
          << i << " " << pair;
      EXPECT_NEAR(real(turn.sine, portable::kTurnBits), std::sin(angles(i, pair)), 2e-6) << i << " " << pair;
    }
}

TEST(FixedPoint, AnglesAreThoseOfTheModel) {
  expect_angles(small_config("dense", 1'000'000), 1'000'000);
  ModelConfig config = small_config("dense", 3072);
  config.qk_width = 80;
  expect_angles(config, 3072);
  config.position_axes = {32, 32, 3};
  expect_angles(config, 3072);
  config.rotary_base = 123456.789;
  expect_angles(config, 3072);
  config.rotary_base = 1;
  expect_angles(config, 3072);
  config.rotary_base = 0;
  config.position_axes.assign(7, 3072);  // whose product is beyond 64 bits
  expect_angles(config, 3072);
}

TEST(FixedPoint, TheWidestRowsAreNormalised) {
  std::vector<Fixed> x(size_t{1} << 20);
  for (const bool centred : {false, true}) {
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? portable::kMost : -portable::kMost;
    portable::normalise(x, centred, portable::kEpsilon5, x.data());
    EXPECT_NEAR(real(x[0]), 1, 1e-5);
    EXPECT_EQ(x[1], -x[0]);
  }
  std::fill(x.begin(), x.end(), portable::kMost);
  portable::normalise(x, true, portable::kEpsilon5, x.data());
  EXPECT_EQ(x[7], 0);
  std::fill(x.begin(), x.end(), -portable::kMost);
  portable::normalise(x, false, portable::kEpsilon5, x.data());
  EXPECT_NEAR(real(x[7]), -1, 1e-5);
}

TEST(FixedPoint, TheLongestSumsOfProductsFit) {
  constexpr int64_t kColumns = int64_t{1} << 22;
  const std::vector<int8_t> w(kColumns, -127);
  const std::vector<int16_t> x(kColumns, 32767);
  portable::whole_product(w.data(), 1, kColumns, x.data(), 1,
                          [&](int64_t, int64_t, int64_t sum) { EXPECT_EQ(sum, -kColumns * 127 * 32767); });
  const std::vector<int16_t> query(kColumns, -4095), key(kColumns, 4095);
  const int32_t row = 0;
  int64_t sum = 1;
  whole_scores(query.data(), key.data(), &row, 1, kColumns, &sum);
  EXPECT_EQ(sum, -kColumns * 4095 * 4095);
}

TEST(FixedPoint, VectorsSumAsPlainLoops) {
  const RandomStream random{5, 6, 7};
  const auto whole = [&](int64_t i, int32_t most) {
    return static_cast<int32_t>(random.block(i)[0] % static_cast<uint32_t>(2 * most + 1)) - most;
  };
  for (const int64_t width : {1, 7, 8, 31, 32, 33, 64, 100, 600, 17000})
    for (const int64_t count : {1, 2, 5, 64, 65, 200}) {
      if (width * count > 1'000'000) continue;
      std::vector<int16_t> x(static_cast<size_t>(width * count)), small(x.size());
      std::vector<int8_t> w(static_cast<size_t>(3 * width));
      std::vector<int32_t> rows, factors;
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<int16_t>(i % 3 == 0 ? 32767 : whole(std::ssize(x) + i, 32767)),
        small[i] = static_cast<int16_t>(i % 3 == 1 ? -4095 : whole(i, 4095));
      for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<int8_t>(i % 5 == 0 ? 127 : whole(i, 127));
      for (int64_t j = 0; j < count; ++j)
        rows.push_back(static_cast<int32_t>((j * 7 + 3) % count)),
            factors.push_back(j % 4 == 0 ? 1 << 20 : whole(j, 1 << 19) + (1 << 19));
      std::vector<int64_t> sums(static_cast<size_t>(std::max(3 * count, width)), -1);
      const int64_t few = std::min<int64_t>(count, portable::kMostWholeRows);
      whole_products(w.data(), 3, width, x.data(), few, sums.data());
      for (int64_t n = 0; n < 3; ++n)
        for (int64_t m = 0; m < few; ++m) {
          int64_t sum = 0;
          for (int64_t k = 0; k < width; ++k) sum += int64_t{w[n * width + k]} * x[m * width + k];
          ASSERT_EQ(sums[n * few + m], sum) << width << " " << count;
        }
      whole_scores(small.data(), small.data(), rows.data(), count, width, sums.data());
      for (int64_t j = 0; j < count; ++j) {
        int64_t sum = 0;
        for (int64_t k = 0; k < width; ++k) sum += int64_t{small[k]} * small[rows[j] * width + k];
        ASSERT_EQ(sums[j], sum) << width << " " << count;
      }
      whole_mixture(factors.data(), x.data(), rows.data(), count, width, sums.data());
      for (int64_t k = 0; k < width; ++k) {
        int64_t sum = 0;
        for (int64_t j = 0; j < count; ++j) sum += int64_t{factors[j]} * x[rows[j] * width + k];
        ASSERT_EQ(sums[k], sum) << width << " " << count;
      }
    }
}

// ---- what it refuses ----

}  // namespace
}  // namespace longstride
