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
#include <nlohmann/json.hpp>

#include "longstride/checkpoint/safetensors.h"

#include "tests/cli/cli_fixture.h"
#include "tests/cli/killed_rank.h"

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

// Ranks that share sequences add up in another order than one process: nearly the same, not bit for bit.
TEST_F(RanksTest, RanksThatShareSequencesLearnTheSame) {
  const std::string model =
      " --set model.context=768 --set model.positions=rotary --set model.qk_norm=true --set "
      "model.value_residual=0.5 --set model.convolution=4"
      " --set model.layers=3 --set train.dropout=0.2 --set train.activations=recompute --set train.steps=6"
      " --set train.optimizer=muon --set train.validate_every=3 --set compute.precision=f32 --quiet --json";
  struct Case {
    const char *pattern, *parallel, *batch;
  };
  int number = 0;
  for (const Case& c : {Case{"fixed:32,8", "sequence=2", "2"},
                        {"strided:3", "sequence=2", "1"},
                        {"window:100", "sequence=3", "2"},
                        {"dense", "sequence=2,data=2", "2"},
                        {"block:128|window:50", "data=1,sequence=3", "1"}}) {
    SCOPED_TRACE(std::string(c.pattern) + ", " + c.parallel);
    const std::string name = std::to_string(++number), settings = model + " --set train.batch=" + c.batch +
                                                                  " --set 'model.pattern=" + c.pattern + "'";
    const auto bits_of = [&](const Outcome& outcome) {
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
      return json.is_discarded()
                 ? std::pair{0.0, 0.0}
                 : std::pair{json["train_bits"].get<double>(), json["validation_bits"].get<double>()};
    };
    const auto whole = bits_of(train(1, "small.toml --run whole" + name + settings));
    const auto shared =
        bits_of(train(1, "small.toml --run shared" + name + settings + " --parallel " + c.parallel));
    EXPECT_GT(whole.first, 1);
    EXPECT_NEAR(whole.first, shared.first, 1e-5);
    EXPECT_NEAR(whole.second, shared.second, 1e-5);
    if (kMpirun.empty() || number > 2) continue;
    const auto by_mpi = bits_of(
        train_by(kMpirun + "-n 2", "small.toml --run mpi" + name + settings + " --parallel " + c.parallel));
    EXPECT_EQ(by_mpi, shared);
  }
  // Whoever goes on alone has the whole sequences.
  const Outcome alone = train(1, "shared1 --set train.steps=9 --set train.batch=2 --quiet");
  EXPECT_EQ(alone.code, 0) << alone.err;
}

TEST_F(RanksTest, SequencesThatCannotBeSharedAreOneLine) {
  const std::string good =
      "small.toml --run run --parallel sequence=2 --set model.context=256 --set model.positions=rotary"
      " --set train.dropout=0";
  const auto expect = [&](const std::string& more, int code, const std::string& message) {
    expect_complaint(train(1, good + more), code, {message});
  };
  expect(" --set model.positions=paper", 1, "set model.positions = \"rotary\"");
  expect(" --set model.context=130", 1, "130 positions cannot be shared out to 2 ranks");
  expect(" --set model.context=132", 1, "a tile of 64 queries, 1 apart, would be cut");
  expect(" --ranks 3", 2, "--parallel sequence=2 is 2 ranks, but --ranks says 3");
  expect_complaint(train(1, "small.toml --run run --parallel sequence=0"), 2,
                   {"must lie between 1 and 1024"});
  expect_complaint(train(1, "small.toml --run run --parallel heads=2"), 2, {"must be as data=2,sequence=4"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
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

// The whole state of a run, moments and averages included, is that of ranks that each keep all of it; it is gone on with by
// any number of ranks, sharing or not.
TEST_F(RanksTest, RanksThatShareTheOptimizerHaveTheSameState) {
  const std::string muon =
      " --set train.optimizer=muon --set model.positions=rotary --set model.convolution=4 --set "
      "train.average=0.99 --set 'train.context_schedule=32 until 0.5'";
  const std::string shared = " --set compute.shard_optimizer=true";
  const auto states = [&](const std::string& run) {
    std::string all;
    for (const char* step : {"20", "30"})
      for (const char* file : {"model", "state"}) {
        const SafetensorsFile tensors(
            folder_ / fmt::format("{}/checkpoints/step-000000{}/{}.safetensors", run, step, file));
        for (const std::string& name : tensors.names()) {
          const Tensor tensor = tensors.find(name);
          all += name + ": " + std::string(static_cast<const char*>(tensor.data), tensor.bytes()) + "\n";
        }
      }
    return all;
  };
  int number = 0;
  for (const std::string& more : {std::string(" --set train.average=0.9"), muon})
    for (const int ranks : {2, 3}) {
      SCOPED_TRACE(more + ", ranks " + std::to_string(ranks));
      const std::string name = std::to_string(++number),
                        settings = " --quiet --set train.keep_last=9 --set train.batch=6" + more;
      Outcome outcome = train(ranks, "small.toml --run whole" + name + settings);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      outcome = train(ranks, "small.toml --run shared" + name + settings + shared);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      const std::string expected = states("whole" + name);
      EXPECT_GT(expected.size(), 100'000U);
      EXPECT_TRUE(expected == states("shared" + name));
      EXPECT_THAT(read_bytes(folder_ / ("shared" + name + "/ranks/rank-1.log")),
                  testing::AllOf(HasSubstr(" step 1\n"), HasSubstr("ended with rank 0\n")));
      EXPECT_EQ(read_bytes(folder_ / ("whole" + name + "/best.json")),
                read_bytes(folder_ / ("shared" + name + "/best.json")));
      if (ranks == 3) continue;
      // On one rank, on three that share, on two that do not.
      for (const auto& [others, how] : {std::pair{1, std::string(" --set train.micro_batch=3")},
                                        {3, shared},
                                        {2, std::string(" --set compute.shard_optimizer=false")}}) {
        outcome = train(others, "shared" + name + " --step 10 --quiet" + how);
        ASSERT_EQ(outcome.code, 0) << outcome.err;
        if (others != 3) {
          EXPECT_TRUE(expected == states("shared" + name)) << others;
        }
      }
      if (kMpirun.empty()) continue;
      outcome = train_by(kMpirun + "-n 2", "small.toml --run mpi" + name + settings + shared);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_TRUE(expected == states("mpi" + name));
    }
}

TEST_F(RanksTest, WhatCannotBeIsOneLine) {
  expect_complaint(train(3, "small.toml --run run"), 1,
                   {"train.batch = 2 sequences cannot be shared out to 3 ranks evenly; take 3"});
  expect_complaint(train(2, "nothing.toml --run run"), 1, {"nothing.toml: no such config file"});
  expect_complaint(train(1, "small.toml --run run --ranks 0"), 2, {"--ranks 0: must lie between 1 and 1024"});
  expect_complaint(longstride("train small.toml --run run --ranks 1000"), 1,
                   {"train.batch = 2 sequences cannot be shared out to 1000 ranks"});
  for (const char* device : {"--device cuda:1", "--set compute.device=cpu", "--set 'compute.device = cpu'"})
    expect_complaint(longstride(std::string("train small.toml --run run --gpus 2 ") + device), 2,
                     {"--gpus 2 and device c", "leave the device out"});
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
  // The last one validates together, and does little else.
  int number = 0;
  for (const char* settings :
       {"--set compute.shard_optimizer=false", "--set compute.shard_optimizer=true",
        "--parallel sequence=2 --set model.context=256 --set model.positions=rotary --set train.dropout=0"
        " --set train.validate_every=1 --set train.validate_bytes=100000"}) {
    SCOPED_TRACE(settings);
    const std::string run = "killed" + std::to_string(++number);
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome =
        train_by(killer_of_rank_1(run),
                 "small.toml --run " + run + " --set train.steps=1000000 --ranks 2 " + settings);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
    EXPECT_EQ(outcome.code, 1);
    const std::string end =
        outcome.err.substr(outcome.err.size() - std::min<size_t>(outcome.err.size(), 400));
    EXPECT_THAT(end, HasSubstr("is saved in " + run));
    EXPECT_THAT(end, HasSubstr("longstride: rank 1 is gone"));
    EXPECT_THAT(end, HasSubstr("longstride: rank 1 was ended by signal 9"));
    const Outcome again = train(2, run + " --set train.minutes=0.01");
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_THAT(again.err, HasSubstr("resuming from step"));
  }
}

}  // namespace
}  // namespace longstride
