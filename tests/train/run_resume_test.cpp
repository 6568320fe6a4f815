// Going on: what a kill left undone is made up for, what belongs to a course that is left is forgotten.
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "longstride/base/check.h"
#include "longstride/run/run_directory.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

class RunResumeTest : public TrainerTest {
 protected:
  RunResumeTest() {
    config_.train.steps = 8;
    config_.train.checkpoint_every = config_.train.validate_every = 4;
  }

  TrainSummary train_from(const std::string& name, int64_t step) {
    TrainObserver observer;
    observer.show_progress = false;
    observer.note = [](const std::string&) {};
    return train_run(run(name), config_, step, observer);
  }

  std::vector<std::pair<int64_t, double>> validations(const std::string& name) const {
    std::vector<std::pair<int64_t, double>> found;
    std::istringstream lines(read_bytes(run(name) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto parsed = nlohmann::json::parse(line);
      if (parsed.contains("validation/bits"))
        found.emplace_back(parsed["step"].get<int64_t>(), parsed["validation/bits"].get<double>());
    }
    return found;
  }
};

// As a kill in the middle of the last validation leaves the run: with and without its line of metrics.
TEST_F(RunResumeTest, AValidationThatAKillTookIsMadeUpFor) {
  train("whole", config_);
  const auto expected = validations("whole");
  ASSERT_EQ(expected.size(), 2u);
  for (const bool logged : {false, true}) {
    const std::string name = logged ? "logged" : "unlogged";
    train(name, config_);
    fs::remove(run(name) + "/checkpoints/step-00000008/amended.json");
    mark_best(run(name), 4, expected[0].second);
    publish_model(run(name), 4);
    if (!logged) {
      std::string kept;
      std::istringstream lines(read_bytes(run(name) + "/metrics.jsonl"));
      for (std::string line; std::getline(lines, line);)
        if (line.find("\"step\":8") == std::string::npos || line.find("validation") == std::string::npos)
          kept += line + "\n";
      write_bytes(run(name) + "/metrics.jsonl", kept);
    }
    const TrainSummary summary = train(name, config_);
    EXPECT_TRUE(summary.complete);
    EXPECT_EQ(validations(name), expected);
    EXPECT_EQ(read_best(run(name))->step, read_best(run("whole"))->step);
    EXPECT_EQ(read_best(run(name))->value, read_best(run("whole"))->value);
    EXPECT_TRUE(read_bytes(run(name) + "/model.safetensors") ==
                read_bytes(run("whole") + "/model.safetensors"));
    // Once is enough.
    EXPECT_FALSE(train(name, config_).validation_bits.has_value());
  }
}

TEST_F(RunResumeTest, GoingBackKeepsTheBestThatIsStillThere) {
  train("a", config_);
  ASSERT_EQ(read_best(run("a"))->step, 8);
  // Back before the best, then a course that is worse: the best is what the older state knows.
  discard_checkpoints_after(run("a"), 8);
  config_.train.steps = 12;
  config_.train.validate_every = 100;
  config_.train.checkpoint_every = 2;
  config_.train.learning_rate = 1;
  config_.train.keep_last = 1;
  train_from("a", 4);
  const auto best = read_best(run("a"));
  ASSERT_TRUE(best.has_value());
  EXPECT_EQ(best->step, 4);
  EXPECT_EQ(best->value, validations("a")[0].second);
  std::vector<int64_t> steps;
  for (const CheckpointInfo& info : list_checkpoints(run("a"))) steps.push_back(info.step);
  EXPECT_THAT(steps, ElementsAre(4, 12));
  EXPECT_EQ(published_step(run("a")), 4);
}

TEST_F(RunResumeTest, ABestThatIsGoneIsForgotten) {
  config_.train.checkpoint_every = 2;
  train("a", config_);
  // Steps 4 and 8 were validated; a state that knows of 4, without its checkpoint.
  fs::remove_all(run("a") + "/checkpoints/step-00000004");
  config_.train.steps = 7;
  config_.train.validate_every = 0;
  const TrainSummary summary = train_from("a", 6);
  EXPECT_EQ(summary.state.best_step, 7);
  EXPECT_EQ(read_best(run("a"))->step, 7);
  EXPECT_EQ(published_step(run("a")), 7);
}

TEST_F(RunResumeTest, ACheckpointInAFolderOfAnotherStepIsRefused) {
  train("a", config_);
  fs::copy(run("a") + "/checkpoints/step-00000004", run("a") + "/checkpoints/step-00000900");
  EXPECT_THAT(message_of<Error>([&] { train("a", config_); }),
              testing::AllOf(HasSubstr("step-00000900"), HasSubstr("copied or renamed")));
  EXPECT_TRUE(fs::exists(run("a") + "/checkpoints/step-00000900"));
  fs::remove_all(run("a") + "/checkpoints/step-00000900");
  EXPECT_EQ(train("a", config_).state.step, 8);
}

TEST_F(RunResumeTest, TheFirstLineOfMetricsAveragesOverTheWholeInterval) {
  config_.train.log_every = 6;
  config_.train.steps = 12;
  const auto bits = [&](const std::string& name) {
    std::vector<double> found;
    std::istringstream lines(read_bytes(run(name) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto parsed = nlohmann::json::parse(line);
      if (parsed.contains("train/bits")) found.push_back(parsed["train/bits"].get<double>());
    }
    return found;
  };
  train("whole", config_);
  train("cut", config_);
  discard_checkpoints_after(run("cut"), 4);
  train("cut", config_);
  EXPECT_EQ(bits("cut"), bits("whole"));
}

TEST_F(RunResumeTest, ACheckpointIsSavedByTimeToo) {
  config_.train.checkpoint_every = 0;
  config_.train.validate_every = 0;
  config_.train.checkpoint_minutes = 1e-9;
  train("a", config_);
  EXPECT_EQ(list_checkpoints(run("a")).size(), 8u);
}

// Compressed files and states of samples name their model by a digest.
TEST(ModelIdentity, FieldsOfLaterVersionsLeaveThatOfOlderModelsAlone) {
  ModelConfig model;
  const std::string before = identity_of(model);
  EXPECT_THAT(before, testing::HasSubstr("value_residual = 0"));
  EXPECT_THAT(before, testing::Not(testing::HasSubstr("convolution")));
  model.convolution = 4;
  EXPECT_THAT(identity_of(model), testing::HasSubstr("convolution = 4"));
}

TEST_F(RunResumeTest, ARunFromBeforeMixedValuesAndConvolutionsHasNone) {
  train("a", config_);
  std::string text = read_bytes(run("a") + "/config.toml");
  for (const std::string line : {"value_residual = 0", "convolution = 0"}) {
    ASSERT_NE(text.find(line), std::string::npos);
    const size_t begin = text.find(line), end = text.find('\n', begin);
    text.erase(begin, end + 1 - begin);
  }
  write_bytes(run("a") + "/config.toml", text);
  EXPECT_EQ(read_run_config(run("a")).model.value_residual, 0);
  EXPECT_EQ(read_run_config(run("a")).model.convolution, 0);
  config_.train.steps = 9;
  train("a", config_);
  EXPECT_EQ(read_run_config(run("a")).model.value_residual, 0);
  EXPECT_EQ(read_run_config(run("a")).model.convolution, 0);
}

TEST_F(RunResumeTest, ARunFromBeforeTheScheduleFieldKeepsItsCurve) {
  train("a", config_);
  std::string text = read_bytes(run("a") + "/config.toml");
  text.erase(text.find("schedule = 2"), 12);
  write_bytes(run("a") + "/config.toml", text);
  EXPECT_EQ(read_run_config(run("a")).train.schedule, 1);
  config_.train.steps = 9;
  train("a", config_);
  EXPECT_EQ(read_run_config(run("a")).train.schedule, 1);
}

TEST(TrainState, NumbersAreStrict) {
  const Metadata good = TrainState{}.to_metadata();
  EXPECT_EQ(TrainState::from_metadata(good).step, 0);
  const std::pair<const char*, const char*> kBad[] = {
      {"train.step", "64Ki"},     {"train.step", "9223372036854775807"},
      {"train.step", "-1"},       {"train.step", ""},
      {"train.seconds", "x"},     {"train.seconds", "inf"},
      {"train.seconds", "1 2"},   {"train.best_step", "5"},
      {"train.best_bits", "nan"}, {"train.loss_scale", "1x"},
      {"train.skipped", "1e3"},   {"train.validated_step", "7"}};
  for (const auto& [key, value] : kBad) {
    Metadata bad = good;
    bad[key] = value;
    EXPECT_THAT(message_of<Error>([&] { TrainState::from_metadata(bad); }), HasSubstr(key)) << value;
  }
}

}  // namespace
}  // namespace longstride
