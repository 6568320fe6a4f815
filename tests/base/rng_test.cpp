#include "longstride/base/rng.h"

#include <gtest/gtest.h>

namespace longstride {
namespace {

// Known answers published with the Random123 library (kat_vectors, philox4x32 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (PhiloxBlock{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const uint32_t ones = 0xffffffffu;
  EXPECT_EQ(philox({ones, ones, ones, ones}, ~uint64_t{0}),
            (PhiloxBlock{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0x299f31d0a4093822u),
            (PhiloxBlock{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(RandomStream, NormalHasMeanZeroAndVarianceOne) {
  const RandomStream random{7, 1, 0};
  double sum = 0, squares = 0, fourth = 0;
  const int count = 200000;
  for (int i = 0; i < count; ++i) {
    const double x = random.normal(i);
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / count, 0, 0.01);
  EXPECT_NEAR(squares / count, 1, 0.02);
  EXPECT_NEAR(fourth / count, 3, 0.1);
}

TEST(RandomStream, StreamsAndStepsDiffer) {
  const PhiloxBlock base = RandomStream{7, 1, 0}.block(5);
  EXPECT_NE(base, (RandomStream{7, 2, 0}.block(5)));
  EXPECT_NE(base, (RandomStream{7, 1, 1}.block(5)));
  EXPECT_NE(base, (RandomStream{8, 1, 0}.block(5)));
  EXPECT_NE(base, (RandomStream{7, 1, 0}.block(6)));
  EXPECT_EQ(base, (RandomStream{7, 1, 0}.block(5)));
}

}  // namespace
}  // namespace longstride
