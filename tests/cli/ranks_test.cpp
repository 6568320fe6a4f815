// Training on several ranks as a user starts it: the same bits as one process with as many micro-batches,
// whatever the number of ranks it began with; and one clear line for what cannot be.
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::Not;

class RanksTest : public CliTest {
 protected:
  void SetUp() override {
    environment_ =
        "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 ";
    write_small_config("dropout = 0.1\n[compute]\ndevice = 'cpu'\nthreads = 1\n");
  }
  // `train ARGUMENTS` on so many ranks.
  Outcome train(int ranks, const std::string& arguments) {
    const std::string alone = environment_;
    if (ranks > 1) environment_ += "mpirun --quiet -n " + std::to_string(ranks);
    const Outcome outcome = longstride("train " + arguments);
    environment_ = alone;
    return outcome;
  }
  std::string weights(const std::string& run) { return read_bytes(folder_ / (run + "/model.safetensors")); }
};

TEST_F(RanksTest, RanksAreAsManyMicroBatchesBitForBit) {
  const std::string everything =
      " --set train.batch=6 --set train.optimizer=muon --set model.positions=rotary --set model.qk_norm=true"
      " --set model.value_residual=0.5 --set model.convolution=4 --set train.average=0.99"
      " --set 'train.context_schedule=32 until 0.5'";
  for (const std::string& more : {std::string(" --set train.batch=6"), everything})
    for (const int ranks : {2, 3}) {
      SCOPED_TRACE(more + ", ranks " + std::to_string(ranks));
      const std::string one = "one" + std::to_string(ranks), several = "several" + std::to_string(ranks);
      for (const std::string& run : {one, several}) std::filesystem::remove_all(folder_ / run);
      Outcome outcome = train(
          1, "small.toml --run " + one + more + " --set train.micro_batch=" + std::to_string(6 / ranks));
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      outcome = train(ranks, "small.toml --run " + several + more);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_THAT(outcome.err, HasSubstr("ranks      " + std::to_string(ranks)));
      EXPECT_FALSE(weights(one).empty());
      EXPECT_TRUE(weights(one) == weights(several));
    }
}

TEST_F(RanksTest, ACheckpointDoesNotKnowTheNumberOfRanks) {
  const std::string keep = " --set train.keep_last=5 --quiet";
  ASSERT_EQ(train(1, "small.toml --run whole --set train.micro_batch=1" + keep).code, 0);
  ASSERT_EQ(train(2, "small.toml --run parts" + keep).code, 0);
  ASSERT_EQ(train(1, "parts --step 10 --set train.micro_batch=1" + keep).code, 0);
  EXPECT_TRUE(weights("parts") == weights("whole"));
  ASSERT_EQ(train(2, "parts --step 20" + keep).code, 0);
  EXPECT_TRUE(weights("parts") == weights("whole"));
}

TEST_F(RanksTest, WhatCannotBeIsOneLine) {
  Outcome outcome = train(3, "small.toml --run run");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("longstride: train.batch = 2 sequences cannot be shared out to 3 ranks "
                                     "evenly; take 3"));
  outcome = train(2, "nothing.toml --run run");
  EXPECT_THAT(outcome.err, HasSubstr("longstride: nothing.toml: no such config file"));
  environment_ += "mpirun --quiet -n 1 ";
  outcome = longstride("train small.toml --run run : -n 1 " + std::string(LONGSTRIDE_BINARY) +
                       " train small.toml --run run --set train.dropout=0.2");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("longstride: rank 1 has another configuration than rank 0"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

TEST_F(RanksTest, TheDeathOfARankEndsTheOthersAndTheRunGoesOn) {
  std::thread killer([&] {
    const std::string kill_rank_1 =
        "for p in $(pgrep -f 'longstride train small.toml --run killed'); do"
        " tr '\\0' '\\n' < /proc/$p/environ 2>/dev/null | grep -q '^OMPI_COMM_WORLD_RANK=1$' && kill -9 $p; "
        "done";
    for (int i = 0; i < 600; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (!std::filesystem::exists(folder_ / "killed/checkpoints/step-00000020")) continue;
      [[maybe_unused]] const int status = std::system(kill_rank_1.c_str());
      return;
    }
  });
  const auto begin = std::chrono::steady_clock::now();
  environment_ += "mpirun -n 2";
  const Outcome outcome = longstride("train small.toml --run killed --set train.steps=1000000");
  killer.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(90));
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("process rank 1"));
  environment_.resize(environment_.size() - std::string("mpirun -n 2").size());
  const Outcome again = train(2, "killed --set train.steps=40");
  EXPECT_THAT(again.err, testing::AnyOf(HasSubstr("resuming from step"), HasSubstr("cannot end at step 40")));
}

}  // namespace
}  // namespace longstride
