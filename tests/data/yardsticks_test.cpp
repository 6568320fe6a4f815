#include "longstride/data/yardsticks.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/check.h"

namespace longstride {
namespace {

std::vector<uint8_t> bytes_in(const std::string& text) { return {text.begin(), text.end()}; }

TEST(Yardsticks, OfBytesInTurnsIsKnownByHand) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "ab";
  const Yardsticks turns = measure_yardsticks(bytes_in(text));
  EXPECT_NEAR(turns.entropies[0], 1, 1e-6);  // two bytes, equally often
  for (size_t order = 1; order < 4; ++order) EXPECT_NEAR(turns.entropies[order], 0, 1e-6);
  EXPECT_LT(turns.xz_bits, 0.2);
  // After an a come b and c equally often, and each of them is followed by an a.
  text.clear();
  uint64_t state = 1;
  for (int i = 0; i < 100000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const bool b = state >> 63;
    text += b ? "ab" : "ac";
  }
  const Yardsticks pairs = measure_yardsticks(bytes_in(text));
  EXPECT_NEAR(pairs.entropies[0], 1.5, 1e-3);
  EXPECT_NEAR(pairs.entropies[1], 0.5, 1e-3);
  EXPECT_NEAR(pairs.entropies[3], 0.5, 1e-3);
  EXPECT_GT(pairs.xz_bits, 0.5);
  EXPECT_LT(pairs.xz_bits, 0.7);
}

TEST(Yardsticks, OfEdges) {
  const Yardsticks one = measure_yardsticks(bytes_in("a"));
  for (const double entropy : one.entropies) EXPECT_EQ(entropy, 0);
  EXPECT_GT(one.xz_bits, 8);
  EXPECT_EQ(measure_yardsticks(std::vector<uint8_t>(3, 255)).entropies[2], 0);
  EXPECT_THROW(measure_yardsticks({}), Error);
}

}  // namespace
}  // namespace longstride
