// The range coder: everything comes back, in as few bytes as the frequencies promise.
#include "longstride/compress/range_coder.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "longstride/base/rng.h"

namespace longstride {
namespace {

struct Share {
  uint32_t start, frequency;
};

// Codes the shares, and expects each target of the decoder in its own.
std::vector<uint8_t> expect_round_trip(const std::vector<Share>& shares) {
  RangeEncoder encoder;
  double bits = 0;
  for (const Share& share : shares) {
    encoder.encode(share.start, share.frequency);
    bits -= std::log2(share.frequency / double{kFrequencyTotal});
  }
  std::vector<uint8_t> code = encoder.finish();
  RangeDecoder decoder(code);
  for (size_t i = 0; i < shares.size(); ++i) {
    const uint32_t target = decoder.target();
    EXPECT_GE(target, shares[i].start) << i;
    EXPECT_LT(target - shares[i].start, shares[i].frequency) << i;
    if (testing::Test::HasFailure()) break;
    decoder.consume(shares[i].start, shares[i].frequency);
  }
  EXPECT_LE(static_cast<double>(code.size()), bits / 8 * (1 + 1e-6) + 2);
  return code;
}

TEST(RangeCoder, RandomShares) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const RandomStream random{seed, 1, 0};
    std::vector<Share> shares;
    for (int64_t i = 0; i < 3000; ++i) {
      const auto block = random.block(i);
      // Narrow and wide ones alike.
      const uint32_t start = block[0] % kFrequencyTotal >> block[1] % kFrequencyBits;
      const uint32_t most = kFrequencyTotal - start;
      shares.push_back({start, std::max(1u, (block[2] % most) >> block[3] % kFrequencyBits)});
    }
    expect_round_trip(shares);
  }
}

TEST(RangeCoder, SkewedAndCertain) {
  const std::vector<Share> first(5000, {0, kFrequencyTotal - 255});
  EXPECT_LE(expect_round_trip(first).size(), 2u);
  const std::vector<Share> certain(100000, {0, kFrequencyTotal});
  EXPECT_EQ(expect_round_trip(certain).size(), 1u);
  const std::vector<Share> last(5000, {255, kFrequencyTotal - 255});
  EXPECT_LE(expect_round_trip(last).size(), 2u);
  expect_round_trip(std::vector<Share>(5000, {kFrequencyTotal - 1, 1}));
  expect_round_trip(std::vector<Share>(5000, {0, 1}));
}

// The low end creeps up to a long row of 0xFF before it is carried over.
TEST(RangeCoder, CarriesThroughLongRows) {
  for (const int row : {1, 5, 100, 3000}) {
    for (uint32_t tail = 0; tail < 64; ++tail) {
      std::vector<Share> shares{{kFrequencyTotal / 2 - 1, 2}};
      for (int i = 0; i < row; ++i) shares.push_back({kFrequencyTotal / 2 - 1, 2});
      for (int i = 0; i < row; ++i) shares.push_back({kFrequencyTotal - 1 - tail % 4, 1});
      shares.push_back({tail * 7919 % 1024, 3});
      expect_round_trip(shares);
    }
  }
}

TEST(RangeCoder, WhatNobodyWroteDoesNoHarm) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const RandomStream random{seed, 2, 0};
    std::vector<uint8_t> code(static_cast<size_t>(seed % 20), static_cast<uint8_t>(seed < 5 ? 0xFF : seed));
    RangeDecoder decoder(code);
    for (int64_t i = 0; i < 2000; ++i) {
      const uint32_t target = decoder.target();
      ASSERT_LT(target, kFrequencyTotal);
      decoder.consume(target, std::min(kFrequencyTotal - target, 1 + random.block(i)[0] % 1000));
    }
  }
}

TEST(RangeCoder, BeginsAnew) {
  RangeEncoder encoder;
  encoder.encode(5, 1000);
  const std::vector<uint8_t> first = encoder.finish();
  encoder.encode(5, 1000);
  EXPECT_EQ(encoder.finish(), first);
}

}  // namespace
}  // namespace longstride
