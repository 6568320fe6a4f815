// Training as a user sees it: it learns, it resumes to the very bits, a damaged or NaN state loses nothing.
#include "longstride/train/trainer.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/train/schedule.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;

TEST_F(TrainerTest, LearnsAndKeepsCurvesCheckpointsAndTheBest) {
  config_.train.steps = 120;
  const TrainSummary summary = train("a", config_);
  EXPECT_TRUE(summary.complete);
  EXPECT_EQ(summary.state.step, 120);
  EXPECT_LT(summary.train_bits, 4.0);  // from 8; dropout keeps it from the text's true 1 bit or so
  EXPECT_LT(summary.state.best_bits, 4.0);
  EXPECT_TRUE(fs::exists(run("a") + "/model.safetensors"));
  EXPECT_EQ(read_best(run("a"))->step, summary.state.best_step);
  // Also where a checkpoint and a validation fall on the same step.
  const TrainState best = TrainState::from_metadata(
      OpenCheckpoint(find_checkpoint(run("a"), summary.state.best_step)).metadata());
  EXPECT_EQ(best.best_step, summary.state.best_step);
  EXPECT_EQ(best.best_bits, summary.state.best_bits);
  std::ifstream curve(run("a") + "/metrics.jsonl");
  std::string line;
  int lines = 0;
  while (std::getline(curve, line)) ++lines;
  EXPECT_EQ(lines, 120 / 10 + 120 / 8);
}

TEST_F(TrainerTest, BytesInMemoryTeachWhatTheirFileDoes) {
  const Splits file = open_splits(config_.data);
  const auto corpus = std::make_shared<const Corpus>(
      Segment{file.train.corpus, 0, file.train.corpus->size()}.read(0, file.train.corpus->size()));
  Trainer from_file(config_, file), from_memory(config_, split_corpus(corpus, config_.data.split));
  for (int step = 0; step < 3; ++step) EXPECT_EQ(from_file.step().bits, from_memory.step().bits);
}

// As the rotation of a log does it, in the middle of a run.
TEST_F(TrainerTest, DataThatAreCutWhileTheyAreReadCostNothingThatWasLearnt) {
  config_.train.steps = 1'000'000;
  config_.train.checkpoint_every = 0;
  config_.train.validate_every = 0;
  config_.train.log_every = 1;
  std::thread rotation([&] {
    std::error_code none;
    while (!(fs::file_size(run("a") + "/metrics.jsonl", none) > 0) || none)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    fs::resize_file(config_.data.path, 100);
  });
  std::string message;
  try {
    train("a", config_);
  } catch (const InputError& error) {
    message = error.what();
  }
  rotation.join();
  EXPECT_THAT(message,
              testing::AllOf(testing::HasSubstr(config_.data.path), testing::HasSubstr("100 bytes, 20")));
  const IntactCheckpoint newest = newest_intact(run("a"));
  ASSERT_TRUE(newest.found);
  EXPECT_GE(newest.found->step, 1);
  EXPECT_THAT(notes_, testing::HasSubstr(fmt::format("step {} is saved", newest.found->step)));
}

TEST_F(TrainerTest, DataThatAreCutBeforeAValidationCostNothingThatWasLearnt) {
  config_.data.validation_path = directory_ / "validation.txt";
  std::ofstream(config_.data.validation_path) << babble(1000);
  config_.train.checkpoint_every = 0;
  config_.train.validate_every = 8;
  config_.train.log_every = 1;
  Splits splits = open_splits(config_.data);
  Trainer trainer(config_, splits);
  trainer.step();
  fs::resize_file(config_.data.validation_path, 0);
  EXPECT_THROW(trainer.validate(0), InputError);
  trainer.step();  // and the training part is there as before
  EXPECT_EQ(trainer.state().step, 2);
}

class ResumeTest : public TrainerTest, public testing::WithParamInterface<const char*> {};

TEST_P(ResumeTest, GoesOnToTheVeryBits) {
  config_.compute.precision = GetParam();
  train("whole", config_);
  // The same run cut off after a checkpoint: what a kill between 12 and 16 leaves.
  train("cut", config_);
  discard_checkpoints_after(run("cut"), 12);
  notes_.clear();
  train("cut", config_);
  EXPECT_THAT(notes_, testing::HasSubstr("resuming from step 12 of 24"));
  for (int64_t step : {16, 24})
    expect_same_tensors(OpenCheckpoint(find_checkpoint(run("whole"), step)),
                        OpenCheckpoint(find_checkpoint(run("cut"), step)));
}

TEST_P(ResumeTest, GoesOnToTheVeryBitsWithMixedValues) {
  config_.compute.precision = GetParam();
  config_.model.layers = 3, config_.model.value_residual = 0.4;
  train("whole", config_);
  train("cut", config_);
  discard_checkpoints_after(run("cut"), 12);
  train("cut", config_);
  expect_same_tensors(OpenCheckpoint(find_checkpoint(run("whole"), 24)),
                      OpenCheckpoint(find_checkpoint(run("cut"), 24)));
}

TEST_P(ResumeTest, GoesOnToTheVeryBitsWithConvolutions) {
  config_.compute.precision = GetParam();
  config_.model.convolution = 4;
  config_.train.optimizer = "muon";
  train("whole", config_);
  train("cut", config_);
  discard_checkpoints_after(run("cut"), 12);
  train("cut", config_);
  const OpenCheckpoint whole(find_checkpoint(run("whole"), 24));
  expect_same_tensors(whole, OpenCheckpoint(find_checkpoint(run("cut"), 24)));
}

INSTANTIATE_TEST_SUITE_P(Precisions, ResumeTest, testing::Values("f32", "bf16"));

// With dropout too: a sequence's mask is that of its place in the batch.
TEST_F(TrainerTest, MicroBatchesGiveTheGradientOfTheBatch) {
  config_.train.dropout = 0.3;
  config_.train.steps = 8;
  config_.compute.precision = "f32";
  config_.train.micro_batch = 4;
  const TrainSummary whole = train("whole", config_);
  config_.train.micro_batch = 1;
  const TrainSummary parts = train("parts", config_);
  EXPECT_NEAR(whole.train_bits, parts.train_bits, 1e-5);
}

TEST_F(TrainerTest, KeepingActivationsGivesTheSameBitsAsRecomputing) {
  config_.train.steps = 4;
  train("recompute", config_);
  config_.train.activations = "keep";
  train("keep", config_);
  expect_same_tensors(OpenCheckpoint(find_checkpoint(run("recompute"), 4)),
                      OpenCheckpoint(find_checkpoint(run("keep"), 4)));
}

TEST_F(TrainerTest, KeepingActivationsGivesTheSameBitsWithMixedValues) {
  config_.train.steps = 4;
  config_.model.layers = 4, config_.model.value_residual = 0.4;
  train("recompute", config_);
  config_.train.activations = "keep";
  train("keep", config_);
  expect_same_tensors(OpenCheckpoint(find_checkpoint(run("recompute"), 4)),
                      OpenCheckpoint(find_checkpoint(run("keep"), 4)));
}

TEST_F(TrainerTest, KeepingActivationsGivesTheSameBitsWithConvolutions) {
  config_.train.steps = 4;
  config_.model.convolution = 4;
  train("recompute", config_);
  config_.train.activations = "keep";
  train("keep", config_);
  expect_same_tensors(OpenCheckpoint(find_checkpoint(run("recompute"), 4)),
                      OpenCheckpoint(find_checkpoint(run("keep"), 4)));
}

TEST_F(TrainerTest, NotFiniteLossStopsAndKeepsTheLastCheckpoint) { expect_last_good_checkpoint(diverge()); }

TEST_F(TrainerTest, AFailedValidationLosesNoWeights) {
  config_.train.validate_bytes = -1;  // what evaluation refuses
  EXPECT_THROW(train("a", config_), Error);
  const IntactCheckpoint newest = newest_intact(run("a"));
  ASSERT_TRUE(newest.found);
  EXPECT_EQ(newest.found->step, config_.train.validate_every);
  config_.train.validate_bytes = 0;
  write_run_config(run("a"), config_);  // the one that is there cannot be read
  EXPECT_EQ(train("a", config_).state.step, 24);
  EXPECT_THAT(notes_, testing::HasSubstr("resuming from step 8 of 24"));
}

TEST_F(TrainerTest, DamagedNewestCheckpointFallsBackToTheOneBefore) {
  train("a", config_);
  const std::string file = find_checkpoint(run("a"), 24).path + "/state.safetensors";
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(5000);
  out.put('\x7f');
  out.close();
  notes_.clear();
  const TrainSummary summary = train("a", config_);
  EXPECT_THAT(notes_, testing::HasSubstr("resuming from step 20 of 24"));
  EXPECT_EQ(summary.state.step, 24);
}

TEST_F(TrainerTest, SecondTrainerIsRefused) {
  train("a", config_);
  const RunLock lock(run("a"));
  EXPECT_THROW(train("a", config_), Error);
}

TEST(Schedule, TheCosineBeginsWhereTheWarmUpEnds) {
  TrainConfig config;
  config.learning_rate = 1;
  config.warmup = 20;
  const auto rate = [&](int64_t step) {
    const double total = 200;
    return learning_rate(config, step, 200, static_cast<double>(step - 1) / total,
                         static_cast<double>(config.warmup) / total);
  };
  EXPECT_NEAR(rate(10), 0.5, 1e-12);
  EXPECT_NEAR(rate(20), 1, 1e-12);
  EXPECT_NEAR(rate(21), 1, 1e-12);
  EXPECT_NEAR(rate(111), 0.5, 1e-12);
  EXPECT_LT(rate(200), 1e-3);
  // A warm-up as long as the run is not cut.
  config.warmup = 200;
  EXPECT_NEAR(rate(100), 0.5, 1e-12);
  EXPECT_NEAR(rate(200), 1, 1e-12);
  // By default it fits the run.
  EXPECT_EQ(warmup_steps(TrainConfig{}, 30), 3);
  EXPECT_EQ(warmup_steps(TrainConfig{}, 1000), 100);
  EXPECT_EQ(warmup_steps(TrainConfig{}, 1000000), 100);
}

TEST(Schedule, OlderRunsKeepTheirCurve) {
  const auto learning_rate = [](const TrainConfig& train, int64_t step, int64_t total, double progress) {
    return longstride::learning_rate(train, step, total, progress, 0.5);
  };
  TrainConfig config;
  config.schedule = 1;
  config.learning_rate = 1;
  config.warmup = 100;
  EXPECT_NEAR(learning_rate(config, 1, 10000, 0), 0.01, 1e-12);
  EXPECT_NEAR(learning_rate(config, 50, 10000, 0), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(config, 5001, 10000, 0.5), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(config, 10000, 10000, 1), 0, 1e-12);
  config.final_rate = 0.1;
  EXPECT_NEAR(learning_rate(config, 10000, 10000, 1), 0.1, 1e-12);
  config.decay = "constant";
  EXPECT_NEAR(learning_rate(config, 10000, 10000, 1), 1, 1e-12);
  // Shorter than ten warm-ups: a tenth of the run warms up.
  EXPECT_NEAR(learning_rate(config, 5, 100, 0.05), 0.5, 1e-12);
}

}  // namespace
}  // namespace longstride
