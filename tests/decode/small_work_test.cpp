// Small work runs on one thread and does not change the number of threads.
#include "longstride/decode/small_work.h"

#include <gtest/gtest.h>

#include "longstride/decode/decoder.h"

#include "tests/support/random_model.h"

namespace longstride {
namespace {

class SmallWork : public ::testing::Test {
 protected:
  ~SmallWork() override { set_threads(0); }
};

TEST_F(SmallWork, IsFewWeightsAndFewProducts) {
  EXPECT_TRUE(too_small_to_share(100'000, 1));
  EXPECT_TRUE(too_small_to_share(100'000, 160));
  EXPECT_FALSE(too_small_to_share(100'000, 170));
  EXPECT_FALSE(too_small_to_share(5'000'000, 1));
}

TEST_F(SmallWork, LimitsThreadsForAWhile) {
  set_threads(3);
  {
    const ThreadLimit none(false);
    EXPECT_EQ(threads(), 3);
    const ThreadLimit one(true);
    EXPECT_EQ(threads(), 1);
  }
  EXPECT_EQ(threads(), 3);
}

TEST_F(SmallWork, ASmallPrimingLeavesThreadsAsTheyWere) {
  set_threads(2);
  const support::RandomModel model(support::small_config("fixed:8,2", 45));
  Decoder decoder(model.config, model.parameters, Device{});
  const std::vector<uint8_t> bytes(40, 65);
  decoder.prefill(0, bytes);
  EXPECT_EQ(threads(), 2);
  EXPECT_EQ(decoder.filled(0), 40);
}

}  // namespace
}  // namespace longstride
