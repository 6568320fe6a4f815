// From logits to frequencies: exact sums, the order of the logits, and next to no loss.
#include "longstride/compress/frequencies.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/base/rng.h"
#include "longstride/compress/range_coder.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

std::vector<float> random_logits(uint64_t seed, double deviation) {
  const RandomStream random{seed, 3, 0};
  std::vector<float> logits(256);
  for (int64_t b = 0; b < 256; ++b) logits[b] = static_cast<float>(deviation * random.normal(b));
  return logits;
}

void expect_well_formed(const std::vector<float>& logits) {
  const Frequencies frequencies(logits);
  EXPECT_EQ(frequencies.start(0), 0u);
  EXPECT_EQ(frequencies.start(255) + frequencies.of(255), kFrequencyTotal);
  for (int b = 0; b < 256; ++b) {
    EXPECT_GE(frequencies.of(b), 1u);
    EXPECT_EQ(frequencies.byte_at(frequencies.start(b)), b);
    EXPECT_EQ(frequencies.byte_at(frequencies.start(b) + frequencies.of(b) - 1), b);
    for (int other = 0; other < 256; ++other)
      if (logits[other] > logits[b]) {
        EXPECT_GE(frequencies.of(other), frequencies.of(b)) << b << " " << other;
      }
  }
}

// Expected bits of a byte by its own distribution, and what the frequencies make of it.
std::pair<double, double> cost(const std::vector<float>& logits) {
  const Frequencies frequencies(logits);
  double ideal = 0, real = 0;
  for (int b = 0; b < 256; ++b) {
    const double bits = bits_of(logits, static_cast<uint8_t>(b)), p = std::exp2(-bits);
    ideal += p * bits;
    real -= p * std::log2(frequencies.of(b) / double{kFrequencyTotal});
  }
  return {ideal, real};
}

TEST(Frequencies, AreWellFormed) {
  for (uint64_t seed = 0; seed < 20; ++seed)
    for (const double deviation : {0.0, 1e-4, 0.1, 1.0, 3.0, 10.0, 100.0, 1e30})
      expect_well_formed(random_logits(seed, deviation));
  std::vector<float> one(256, -3e38f);
  one[77] = 3e38f;
  expect_well_formed(one);
  EXPECT_EQ(Frequencies(one).of(77), kFrequencyTotal - 255);
}

TEST(Frequencies, FollowSmallSteps) {
  std::vector<float> logits(256);
  for (int b = 0; b < 256; ++b) logits[b] = static_cast<float>(b) * 2e-6f;
  expect_well_formed(logits);
  for (int b = 0; b < 256; ++b) logits[b] = static_cast<float>(-b) / 12.0f;
  expect_well_formed(logits);
}

TEST(Frequencies, EqualLogitsAreEqual) {
  const std::vector<float> logits(256, 1.5f);
  const Frequencies frequencies(logits);
  for (int b = 0; b < 256; ++b) EXPECT_EQ(frequencies.of(b), kFrequencyTotal / 256);
}

TEST(Frequencies, CostLessThanATenThousandth) {
  for (uint64_t seed = 0; seed < 50; ++seed)
    for (const double deviation : {0.5, 2.0, 4.0, 6.0}) {
      const auto [ideal, real] = cost(random_logits(seed, deviation));
      EXPECT_GE(real, ideal * (1 - 1e-9));
      // Where next to nothing is left to code, the byte's smallest share shows.
      EXPECT_LE(real, ideal * 1.0001 + 1e-6) << deviation << " " << ideal;
    }
}

// Of these logits on every machine; another number would make compressed files unreadable.
TEST(Frequencies, AreTheSameEverywhere) {
  std::vector<float> logits(256);
  for (int b = 0; b < 256; ++b) logits[b] = static_cast<float>(b * b % 251) / 16.0f;
  const Frequencies frequencies(logits);
  uint64_t mixed = 0;
  for (int b = 0; b < 256; ++b) mixed = mixed * 6364136223846793005u + frequencies.of(b);
  EXPECT_EQ(mixed, 3444828461714065340u);
}

TEST(Frequencies, RefuseWhatIsNoNumber) {
  for (const float bad :
       {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits(256, 0.0f);
    logits[3] = bad;
    EXPECT_THAT(message_of<Error>([&] { Frequencies{logits}; }), testing::HasSubstr("not finite"));
  }
}

TEST(Frequencies, BitsAreThoseOfTheSoftmax) {
  std::vector<float> logits(256, 0.0f);
  EXPECT_NEAR(bits_of(logits, 9), 8.0, 1e-12);
  logits[9] = 1000.0f;
  EXPECT_NEAR(bits_of(logits, 9), 0.0, 1e-12);
  EXPECT_NEAR(bits_of(logits, 8), 1000.0 * std::log2(std::exp(1.0)), 1e-9);
}

}  // namespace
}  // namespace longstride
