#include "longstride/decode/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits that give a probability only to the named bytes.
std::vector<float> logits_of(const std::map<int, double>& probabilities) {
  std::vector<float> logits(256, -kInfinity);
  for (const auto& [byte, p] : probabilities) logits[byte] = static_cast<float>(std::log(p));
  return logits;
}

std::set<int> support(const std::array<double, 256>& probabilities) {
  std::set<int> bytes;
  for (int byte = 0; byte < 256; ++byte)
    if (probabilities[byte] > 0) bytes.insert(byte);
  return bytes;
}

TEST(Sampler, DistributionIsTheSoftmax) {
  std::vector<float> logits(256);
  for (int byte = 0; byte < 256; ++byte) logits[byte] = 40.0f + 3.0f * std::sin(0.7f * byte);
  for (const double temperature : {0.5, 1.0, 1.7}) {
    long double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<long double>(logit) / temperature);
    const auto probabilities = sampling_distribution(logits, {.temperature = temperature});
    for (int byte = 0; byte < 256; ++byte) {
      const long double expected = std::exp(static_cast<long double>(logits[byte]) / temperature) / total;
      EXPECT_NEAR(probabilities[byte], static_cast<double>(expected), 1e-13) << byte << " at " << temperature;
    }
  }
}

TEST(Sampler, HugeLogitsAndTinyTemperaturesStayFinite) {
  std::vector<float> logits(256, -3e38f);
  logits[200] = 3e38f;
  EXPECT_EQ(sampling_distribution(logits, {})[200], 1.0);
  logits.assign(256, 0.0f);
  logits[3] = 1e-3f;
  EXPECT_EQ(sampling_distribution(logits, {.temperature = 1e-300})[3], 1.0);
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndOfEqualOnesTheLowest) {
  std::vector<float> logits(256, -1.0f);
  logits[77] = logits[78] = logits[250] = 2.0f;
  for (int64_t position = 0; position < 50; ++position)
    EXPECT_EQ(draw(logits, {.temperature = 0}, 0, position), 77);
  logits[250] = 2.5f;
  EXPECT_EQ(draw(logits, {.temperature = 0}, 0, 0), 250);
}

TEST(Sampler, TopKKeepsExactlyTheLikeliest) {
  const auto logits = logits_of({{9, 0.1}, {20, 0.4}, {30, 0.2}, {200, 0.3}});
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 1})), ::testing::ElementsAre(20));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 3})), ::testing::ElementsAre(20, 30, 200));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 0})), ::testing::ElementsAre(9, 20, 30, 200));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 1000})),
              ::testing::ElementsAre(9, 20, 30, 200));
  const auto two = sampling_distribution(logits, {.top_k = 2});
  EXPECT_NEAR(two[20], 4.0 / 7, 1e-7);
  EXPECT_NEAR(two[200], 3.0 / 7, 1e-7);
}

TEST(Sampler, TopKBreaksTiesByTheLowerByte) {
  const std::vector<float> equal(256, 1.25f);
  EXPECT_THAT(support(sampling_distribution(equal, {.top_k = 3})), ::testing::ElementsAre(0, 1, 2));
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesP) {
  const auto logits = logits_of({{9, 0.1}, {20, 0.4}, {30, 0.2}, {200, 0.3}});
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.01})), ::testing::ElementsAre(20));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.39})), ::testing::ElementsAre(20));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.41})), ::testing::ElementsAre(20, 200));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.69})), ::testing::ElementsAre(20, 200));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.71})), ::testing::ElementsAre(20, 30, 200));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_p = 0.95})),
              ::testing::ElementsAre(9, 20, 30, 200));
  // Equal weights have exact sums: p = 0.5 is reached by half of the bytes, not by one more.
  const std::vector<float> equal(256, 0.0f);
  const auto half = support(sampling_distribution(equal, {.top_p = 0.5}));
  EXPECT_EQ(half.size(), 128u);
  EXPECT_EQ(*half.rbegin(), 127);
}

TEST(Sampler, TopPCountsWithinWhatTopKLeaves) {
  const auto logits = logits_of({{9, 0.1}, {20, 0.4}, {30, 0.2}, {200, 0.3}});
  // Of the two kept, 20 has 4/7 = 0.571.
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 2, .top_p = 0.5})), ::testing::ElementsAre(20));
  EXPECT_THAT(support(sampling_distribution(logits, {.top_k = 2, .top_p = 0.6})),
              ::testing::ElementsAre(20, 200));
}

// Pearson's statistic of draws at positions 0..count-1 of some streams.
double chi_square(const std::vector<float>& logits, const SamplerConfig& config,
                  const std::map<int, double>& expected, int64_t streams, int64_t count) {
  std::map<int, int64_t> seen;
  for (int64_t stream = 0; stream < streams; ++stream)
    for (int64_t position = 0; position < count; ++position)
      ++seen[draw(logits, config, static_cast<uint32_t>(stream), position)];
  double statistic = 0;
  for (const auto& [byte, p] : expected) {
    const double want = p * static_cast<double>(streams * count), have = static_cast<double>(seen[byte]);
    statistic += (have - want) * (have - want) / want;
    seen.erase(byte);
  }
  EXPECT_TRUE(seen.empty()) << "bytes without probability were drawn, the first is " << seen.begin()->first;
  return statistic;
}

TEST(Sampler, DrawsFollowTheDistribution) {
  const std::map<int, double> p = {{0, 0.02}, {1, 0.08}, {65, 0.4}, {127, 0.15}, {128, 0.05}, {255, 0.3}};
  // 99.9 % quantile of chi-square with 5 degrees of freedom: 20.5.
  EXPECT_LT(chi_square(logits_of(p), {.seed = 3}, p, 4, 50000), 20.5);
  // Temperature 2 turns p into sqrt(p), normalised.
  std::map<int, double> flat;
  double total = 0;
  for (const auto& [byte, value] : p) total += std::sqrt(value);
  for (const auto& [byte, value] : p) flat[byte] = std::sqrt(value) / total;
  EXPECT_LT(chi_square(logits_of(p), {.temperature = 2, .seed = 4}, flat, 4, 50000), 20.5);
  // 2 degrees of freedom: 13.8.
  EXPECT_LT(chi_square(logits_of(p), {.top_k = 3, .seed = 5},
                       {{65, 0.4 / 0.85}, {127, 0.15 / 0.85}, {255, 0.3 / 0.85}}, 4, 50000),
            13.8);
}

TEST(Sampler, DrawsDependOnSeedStreamAndPositionOnly) {
  const std::vector<float> logits(256, 0.0f);
  const auto sequence = [&](uint64_t seed, uint32_t stream) {
    std::vector<uint8_t> bytes;
    for (int64_t position = 0; position < 64; ++position)
      bytes.push_back(draw(logits, {.seed = seed}, stream, position));
    return bytes;
  };
  const auto first = sequence(1, 0);
  EXPECT_EQ(first, sequence(1, 0));
  EXPECT_NE(first, sequence(2, 0));
  EXPECT_NE(first, sequence(1, 1));
  EXPECT_EQ(draw(logits, {.seed = 1}, 0, 63), first[63]);
}

TEST(Sampler, RefusesWhatHasNoDistribution) {
  std::vector<float> logits(256, 0.0f);
  logits[17] = std::nanf("");
  EXPECT_THROW(draw(logits, {}, 0, 0), Error);
  EXPECT_THROW(draw(logits, {.temperature = 0}, 0, 0), Error);
  logits[17] = kInfinity;
  EXPECT_THROW(draw(logits, {}, 0, 0), Error);
  EXPECT_THROW(draw(std::vector<float>(256, -kInfinity), {}, 0, 0), Error);
  EXPECT_THROW(draw(std::vector<float>(255, 0.0f), {}, 0, 0), Error);
  const std::vector<float> fine(256, 0.0f);
  EXPECT_THROW(draw(fine, {.temperature = -1}, 0, 0), Error);
  EXPECT_THROW(draw(fine, {.temperature = std::nan("")}, 0, 0), Error);
  EXPECT_THROW(draw(fine, {.top_k = -1}, 0, 0), Error);
  EXPECT_THROW(draw(fine, {.top_p = 0}, 0, 0), Error);
  EXPECT_THROW(draw(fine, {.top_p = 1.5}, 0, 0), Error);
}

}  // namespace
}  // namespace longstride
