// Training on several GPUs of this machine, as a user starts it: the same bits as on one GPU with as many
// micro-batches, whatever the number of GPUs it began with. Skipped where there are fewer than two.
#include <chrono>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "longstride/device/backend.h"

#include "tests/cli/cli_fixture.h"
#include "tests/cli/killed_rank.h"

namespace longstride {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class GpuRanksTest : public CliTest {
 protected:
  void SetUp() override {
    gpus_ = backend(DeviceKind::cuda).count();
    if (gpus_ < 2) GTEST_SKIP() << "there are fewer than two GPUs";
    write_small_config("dropout = 0.1\n");
  }
  Outcome train(int gpus, const std::string& arguments) {
    return longstride("train " + arguments +
                      (gpus > 1 ? " --gpus " + std::to_string(gpus) : " --device cuda:0"));
  }
  std::string weights(const std::string& run) { return read_bytes(folder_ / (run + "/model.safetensors")); }
  // Two ranks train with these settings; one is killed, all end, and the run goes on.
  void expect_death_to_end_all(const std::string& run, const std::string& settings) {
    environment_ = killer_of_rank_1(run);
    const auto begin = std::chrono::steady_clock::now();
    const Outcome outcome = train(2, "small.toml --run " + run + " --set train.steps=1000000" + settings);
    environment_.clear();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
    EXPECT_EQ(outcome.code, 1);
    const std::string end =
        outcome.err.substr(outcome.err.size() - std::min<size_t>(outcome.err.size(), 400));
    EXPECT_THAT(end, HasSubstr("is saved in " + run));
    EXPECT_THAT(end, HasSubstr("longstride: rank 1 is gone"));
    const Outcome again = train(2, run + " --set train.minutes=0.05");
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_THAT(again.err, HasSubstr("resuming from step"));
  }

  int gpus_ = 0;
};

TEST_F(GpuRanksTest, GpusAreAsManyMicroBatchesBitForBit) {
  const std::string everything =
      " --set train.optimizer=muon --set model.positions=rotary --set model.qk_norm=true"
      " --set model.value_residual=0.5 --set model.convolution=4 --set train.average=0.99"
      " --set 'train.context_schedule=32 until 0.5'";
  int number = 0;
  for (const std::string& more : {std::string(), everything})
    for (const int gpus : {2, 3, 4}) {
      if (gpus > gpus_) continue;
      SCOPED_TRACE(more + ", GPUs " + std::to_string(gpus));
      const std::string name = std::to_string(++number), settings = " --set train.batch=12" + more;
      Outcome outcome = train(1, "small.toml --run one" + name + settings +
                                     " --set train.micro_batch=" + std::to_string(12 / gpus));
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      outcome = train(gpus, "small.toml --run several" + name + settings);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_THAT(outcome.err,
                  HasSubstr("ranks      " + std::to_string(gpus) + ", each on a GPU of its own"));
      EXPECT_FALSE(weights("one" + name).empty());
      EXPECT_TRUE(weights("one" + name) == weights("several" + name));
    }
}

// The state too, as far as other batches of Muon's matrices give the same products.
TEST_F(GpuRanksTest, GpusThatShareTheOptimizerLearnTheSame) {
  const std::string muon =
      " --set train.optimizer=muon --set model.positions=rotary --set model.convolution=4 --set "
      "model.layers=4"
      " --set train.average=0.99 --set 'train.context_schedule=32 until 0.5'";
  int number = 0;
  for (const std::string& more : {std::string(" --set train.average=0.9"), muon})
    for (const int gpus : {2, 3, 4}) {
      if (gpus > gpus_) continue;
      SCOPED_TRACE(more + ", GPUs " + std::to_string(gpus));
      const std::string name = std::to_string(++number),
                        settings = " --quiet --set train.keep_last=9 --set train.batch=12" + more,
                        shared = " --set compute.shard_optimizer=true";
      Outcome outcome = train(gpus, "small.toml --run whole" + name + settings);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      outcome = train(gpus, "small.toml --run shared" + name + settings + shared);
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_FALSE(weights("whole" + name).empty());
      EXPECT_TRUE(weights("whole" + name) == weights("shared" + name));
      EXPECT_EQ(read_bytes(folder_ / ("whole" + name + "/best.json")),
                read_bytes(folder_ / ("shared" + name + "/best.json")));
      // Gone on with by one GPU, and by those that share.
      outcome = train(
          1, "shared" + name + " --step 20 --quiet --set train.micro_batch=" + std::to_string(12 / gpus));
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_TRUE(weights("whole" + name) == weights("shared" + name));
      outcome = train(gpus, "shared" + name + " --step 20 --quiet");
      ASSERT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_TRUE(weights("whole" + name) == weights("shared" + name));
    }
}

// Attention with heads of 64 in bf16 is that of Hopper's own kernels, where there are such.
TEST_F(GpuRanksTest, GpusThatShareSequencesLearnTheSame) {
  const std::string model =
      " --set model.context=1536 --set model.width=128 --set model.positions=rotary --set model.qk_norm=true"
      " --set model.value_residual=0.5 --set model.convolution=4 --set model.layers=3 --set train.dropout=0.2"
      " --set train.activations=recompute --set train.steps=12 --set train.optimizer=muon"
      " --set train.validate_every=6 --set train.batch=2 --quiet --json";
  struct Case {
    const char *pattern, *parallel;
    int gpus;
  };
  int number = 0;
  for (const char* precision : {"f32", "bf16"})
    for (const Case& c : {Case{"fixed:128,32", "sequence=2", 2},
                          {"strided:3", "sequence=2", 2},
                          {"spread-fixed:64,16", "sequence=2", 2},
                          {"window:100", "sequence=3", 3},
                          {"fixed:64,8", "sequence=2,data=2", 4}}) {
      if (c.gpus > gpus_) continue;
      SCOPED_TRACE(std::string(precision) + ", " + c.pattern + ", " + c.parallel);
      const std::string name = std::to_string(++number), settings = model +
                                                                    " --set model.pattern=" + c.pattern +
                                                                    " --set compute.precision=" + precision;
      const auto bits_of = [&](const Outcome& outcome) {
        EXPECT_EQ(outcome.code, 0) << outcome.err;
        const auto json = nlohmann::json::parse(outcome.out, nullptr, false);
        return json.is_discarded()
                   ? std::pair{0.0, 0.0}
                   : std::pair{json["train_bits"].get<double>(), json["validation_bits"].get<double>()};
      };
      const auto whole = bits_of(train(1, "small.toml --run whole" + name + settings));
      const auto shared =
          bits_of(train(c.gpus, "small.toml --run shared" + name + settings + " --parallel " + c.parallel));
      const double tolerance = std::string(precision) == "f32" ? 1e-4 : 1e-2;
      EXPECT_GT(whole.first, 1);
      EXPECT_NEAR(whole.first, shared.first, tolerance);
      EXPECT_NEAR(whole.second, shared.second, tolerance);
    }
}

TEST_F(GpuRanksTest, ACheckpointDoesNotKnowTheNumberOfGpus) {
  const std::string keep = " --set train.keep_last=5 --quiet";
  ASSERT_EQ(train(1, "small.toml --run whole --set train.micro_batch=1" + keep).code, 0);
  ASSERT_EQ(train(2, "small.toml --run parts" + keep).code, 0);
  EXPECT_TRUE(weights("parts") == weights("whole"));
  ASSERT_EQ(train(1, "parts --step 10 --set train.micro_batch=1" + keep).code, 0);
  EXPECT_TRUE(weights("parts") == weights("whole"));
  ASSERT_EQ(train(2, "parts --step 20" + keep).code, 0);
  EXPECT_TRUE(weights("parts") == weights("whole"));
}

TEST_F(GpuRanksTest, WhatCannotBeIsOneLine) {
  expect_complaint(train(gpus_ + 1, "small.toml --run run --set train.batch=" + std::to_string(gpus_ + 1)), 1,
                   {"rank " + std::to_string(gpus_) + ": ", "start no more ranks than it has GPUs"});
  expect_complaint(longstride("train small.toml --run run --ranks 2 --device cuda:1"), 1,
                   {"device cuda:1: each rank of a machine takes a GPU of its own; say cuda"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

TEST_F(GpuRanksTest, TheDeathOfARankEndsTheOthersAndTheRunGoesOn) {
  expect_death_to_end_all("killed1", "");
  // Validates together, and does little else.
  expect_death_to_end_all(
      "killed2",
      " --parallel sequence=2 --set model.context=512 --set model.positions=rotary --set train.dropout=0"
      " --set train.validate_every=1 --set train.validate_bytes=1000000");
}

}  // namespace
}  // namespace longstride
