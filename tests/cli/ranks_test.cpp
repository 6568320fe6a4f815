// Training on several ranks as a user starts it: the same bits as one process with as many micro-batches,
// whatever the number of ranks it began with; and one clear line for what cannot be.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

#ifdef LONGSTRIDE_MPIRUN
// It refuses the root user and more ranks than cores unless told otherwise.
const std::string kMpirun =
    "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    "OMPI_MCA_rmaps_base_oversubscribe=1 " LONGSTRIDE_MPIRUN " --quiet ";
#else
const std::string kMpirun;
#endif

class RanksTest : public CliTest {
 protected:
  void SetUp() override { write_small_config("dropout = 0.1\n[compute]\ndevice = 'cpu'\nthreads = 1\n"); }

  // `train ARGUMENTS` on so many ranks, which the program starts itself.
  Outcome train(int ranks, const std::string& arguments) {
    return longstride("train " + arguments + (ranks > 1 ? " --ranks " + std::to_string(ranks) : ""));
  }
  // The same behind `before`: variables, or a launcher.
  Outcome train_by(const std::string& before, const std::string& arguments) {
    environment_ = before;
    const Outcome outcome = longstride("train " + arguments);
    environment_.clear();
    return outcome;
  }
  std::string weights(const std::string& run) { return read_bytes(folder_ / (run + "/model.safetensors")); }
};

TEST_F(RanksTest, RanksAreAsManyMicroBatchesBitForBit) {
  const std::string everything =
      " --set train.optimizer=muon --set model.positions=rotary --set model.qk_norm=true"
      " --set model.value_residual=0.5 --set model.convolution=4 --set train.average=0.99"
      " --set 'train.context_schedule=32 until 0.5'";
  int number = 0;
  for (const std::string& more : {std::string(), everything})
    for (const int ranks : {2, 3}) {
      SCOPED_TRACE(more + ", ranks " + std::to_string(ranks));
      const std::string name = std::to_string(++number), settings = " --set train.batch=6" + more;
      Outcome outcome = train(1, "small.toml --run one" + name + settings +
                                     " --set train.micro_batch=" + std::to_string(6 / ranks));
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      outcome = train(ranks, "small.toml --run several" + name + settings);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_THAT(outcome.err, HasSubstr("ranks      " + std::to_string(ranks)));
      EXPECT_FALSE(weights("one" + name).empty());
      EXPECT_TRUE(weights("one" + name) == weights("several" + name));
      if (kMpirun.empty()) continue;
      outcome = train_by(kMpirun + "-n " + std::to_string(ranks), "small.toml --run mpi" + name + settings);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_TRUE(weights("one" + name) == weights("mpi" + name));
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
  expect_complaint(train(3, "small.toml --run run"), 1,
                   {"train.batch = 2 sequences cannot be shared out to 3 ranks evenly; take 3"});
  expect_complaint(train(2, "nothing.toml --run run"), 1, {"nothing.toml: no such config file"});
  expect_complaint(train(1, "small.toml --run run --ranks 0"), 2, {"--ranks 0: must lie between 1 and 1024"});
  if (!kMpirun.empty()) {
    const Outcome outcome = train_by(kMpirun + "-n 1", "small.toml --run run : -n 1 " LONGSTRIDE_BINARY
                                                       " train small.toml --run run --set train.dropout=0.2");
    EXPECT_EQ(outcome.code, 1);
    EXPECT_THAT(outcome.err, HasSubstr("longstride: rank 1 has another configuration than rank 0"));
  }
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// As torchrun starts them: one that means another run, and one that comes alone.
TEST_F(RanksTest, RanksOfTorchrunAreJoined) {
  expect_complaint(
      train_by("true; RANK=1 WORLD_SIZE=2 MASTER_PORT=29614 " LONGSTRIDE_BINARY
               " train small.toml --run run --set train.dropout=0.2 2>other.txt & RANK=0 WORLD_SIZE=2 "
               "MASTER_PORT=29614",
               "small.toml --run run"),
      1, {"rank 1 has another configuration than rank 0"});
  EXPECT_EQ(read_bytes(folder_ / "other.txt"), "");
  expect_complaint(
      train_by("RANK=0 WORLD_SIZE=2 MASTER_PORT=29615 LONGSTRIDE_JOIN_SECONDS=1", "small.toml --run run"), 1,
      {"rank 1 of 2 did not come to 127.0.0.1:29615 within 1 s"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(RanksTest, TheDeathOfARankEndsTheOthersAndTheRunGoesOn) {
  // Kills rank 1 once the run has a checkpoint, and all of them if that ended nothing.
  const std::string killer =
      "true; (for i in $(seq 300); do sleep 0.1; [ -e killed/best.json ] || continue;"
      " for p in $(pgrep -f 'longstride train small.toml --run killed'); do"
      " tr '\\0' '\\n' 2>/dev/null </proc/$p/environ | grep -q '^RANK=1$' && kill -9 $p; done; break; done;"
      " sleep 40; pkill -9 -f 'longstride train small.toml --run killed') >/dev/null 2>&1 & ";
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = train_by(killer, "small.toml --run killed --set train.steps=1000000 --ranks 2");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
  EXPECT_EQ(outcome.code, 1);
  const std::string end = outcome.err.substr(outcome.err.size() - std::min<size_t>(outcome.err.size(), 400));
  EXPECT_THAT(end, HasSubstr("is saved in killed"));
  EXPECT_THAT(end, HasSubstr("longstride: rank 1 is gone"));
  EXPECT_THAT(end, HasSubstr("longstride: rank 1 was ended by signal 9"));
  const Outcome again = train(2, "killed --set train.minutes=0.01");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("resuming from step"));
}

}  // namespace
}  // namespace longstride
