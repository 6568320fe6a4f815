// Training with Muon: it learns, resumes to the very bits, takes the memory that was planned, and neither
// optimizer goes on with the other's run.
#include <filesystem>

#include "longstride/base/threads.h"
#include "longstride/run/run_directory.h"
#include "longstride/train/memory.h"
#include "longstride/train/optimizer.h"
#include "longstride/train/schedule.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class MuonTrainTest : public TrainerTest {
 protected:
  MuonTrainTest() { config_.train.optimizer = "muon"; }

  std::string refusal(const std::string& name, const RunConfig& config) {
    try {
      train(name, config);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(MuonTrainTest, LearnsFasterThanAdam) {
  config_.train.dropout = 0;
  config_.train.steps = 60;
  config_.train.warmup = 10;
  const TrainSummary muon = train("muon", config_);
  config_.train.optimizer = "adam";
  const TrainSummary adam = train("adam", config_);
  EXPECT_LT(*muon.validation_bits, *adam.validation_bits - 0.2);
}

class MuonResumeTest : public MuonTrainTest, public testing::WithParamInterface<const char*> {};

TEST_P(MuonResumeTest, GoesOnToTheVeryBits) {
  config_.compute.precision = GetParam();
  train("whole", config_);
  train("cut", config_);
  discard_checkpoints_after(run("cut"), 12);
  train("cut", config_);
  EXPECT_THAT(notes_, HasSubstr("resuming from step 12 of 24"));
  for (int64_t step : {16, 24})
    expect_same_tensors(OpenCheckpoint(find_checkpoint(run("whole"), step)),
                        OpenCheckpoint(find_checkpoint(run("cut"), step)));
}

INSTANTIATE_TEST_SUITE_P(Precisions, MuonResumeTest, testing::Values("f32", "bf16"));

TEST_F(MuonTrainTest, TheSameBitsForAnyNumberOfThreads) {
  for (const int count : {1, 3}) {
    set_threads(count);
    train(fmt::format("{}", count), config_);
  }
  set_threads(0);
  expect_same_tensors(OpenCheckpoint(find_checkpoint(run("1"), 24)),
                      OpenCheckpoint(find_checkpoint(run("3"), 24)));
}

TEST_F(MuonTrainTest, TheBlocksMatricesHaveAMomentumAndNoSecondMoment) {
  train("a", config_);
  const std::vector<std::string> names = OpenCheckpoint(find_checkpoint(run("a"), 24)).state().names();
  for (const char* matrix :
       {"attention.qkv", "attention.projection", "feed_forward.up", "feed_forward.down"}) {
    const std::string name = fmt::format("blocks.1.{}.weight", matrix);
    EXPECT_THAT(names, Contains("muon." + name));
    EXPECT_THAT(names, Not(Contains("m." + name)));
    EXPECT_THAT(names, Not(Contains("v." + name)));
  }
  for (const char* name : {"m.embedding.token", "v.embedding.token", "v.blocks.0.attention.qkv.bias",
                           "v.blocks.0.norm1.gain", "v.output.weight"})
    EXPECT_THAT(names, Contains(name));
}

TEST_F(MuonTrainTest, NeitherOptimizerGoesOnWithTheOthersRun) {
  RunConfig adam = config_;
  adam.train.optimizer = "adam";
  train("adam", adam);
  train("muon", config_);
  const std::string before = read_bytes(run("adam") + "/config.toml");
  EXPECT_EQ(
      refusal("adam", config_),
      fmt::format("{}: the run has train.optimizer = \"adam\", not \"muon\", which needs other state than "
                  "its checkpoints hold; begin a new --run",
                  run("adam")));
  EXPECT_THAT(refusal("muon", adam), HasSubstr("the run has train.optimizer = \"muon\", not \"adam\""));
  EXPECT_EQ(read_bytes(run("adam") + "/config.toml"), before);
}

TEST_F(MuonTrainTest, ARunFromBeforeTheFieldIsOneOfAdam) {
  config_.train.optimizer = "adam";
  config_.train.steps = 4;
  train("a", config_);
  std::string text = read_bytes(run("a") + "/config.toml");
  const std::string field = "optimizer = \"adam\"";
  ASSERT_NE(text.find(field), std::string::npos);
  text.erase(text.find(field), field.size());
  write_bytes(run("a") + "/config.toml", text);
  EXPECT_EQ(read_run_config(run("a")).train.optimizer, "adam");
}

TEST_F(MuonTrainTest, ARunFromBeforeTheStepsHadANameGoesOnWithJordans) {
  EXPECT_EQ(config_.train.newton_schulz, "jordan");
  config_.train.newton_schulz = "polar";
  train("polar", config_);
  config_.train.newton_schulz = "jordan";
  train("whole", config_);
  train("old", config_);
  discard_checkpoints_after(run("old"), 12);
  std::string text = read_bytes(run("old") + "/config.toml");
  const std::string field = "newton_schulz = \"jordan\"";
  ASSERT_NE(text.find(field), std::string::npos);
  text.erase(text.find(field), field.size());
  write_bytes(run("old") + "/config.toml", text);
  // The config of a new run does not change what has begun.
  config_.train.newton_schulz = "polar";
  train("old", config_);
  EXPECT_EQ(read_run_config(run("old")).train.newton_schulz, "jordan");
  const OpenCheckpoint whole(find_checkpoint(run("whole"), 24)), old(find_checkpoint(run("old"), 24));
  expect_same_tensors(whole, old);
  EXPECT_NE(bytes_of("polar", 24, "model.safetensors"), bytes_of("whole", 24, "model.safetensors"));
}

TEST_F(MuonTrainTest, PlansTheMomentsThatAreAllocated) {
  const auto bytes_of_state = [](const RunConfig& config) {
    const Optimizer optimizer(config, {}, DType::f32);
    int64_t bytes = 0;
    for (const NamedTensor& named : optimizer.state_tensors())
      if (!named.name.starts_with("raw.")) bytes += (named.tensor.bytes() + 63) / 64 * 64;
    return bytes;
  };
  int64_t planned[2], i = 0;
  for (const char* optimizer : {"adam", "muon"}) {
    config_.train.optimizer = optimizer;
    planned[i] = training_memory(config_).optimizer;
    EXPECT_EQ(planned[i], bytes_of_state(config_)) << optimizer;
    ++i;
  }
  EXPECT_LT(planned[1], 0.75 * planned[0]);
}

TEST_F(MuonTrainTest, EveryShapeOfModelTrains) {
  // Odd widths, half-size queries and keys, one layer; and f32 beside bf16.
  config_.train.steps = 3;
  config_.train.checkpoint_every = 0;
  config_.model.layers = 1;
  config_.model.heads = 3;
  config_.model.width = 33;
  config_.model.qk_width = 15;
  config_.model.feed_forward = 7;
  for (const char* precision : {"f32", "bf16"}) {
    config_.compute.precision = precision;
    EXPECT_LT(train(precision, config_).train_bits, 9) << precision;
  }
}

TEST(MuonSchedule, FollowsTheCurveOfTheLearningRate) {
  TrainConfig config;
  config.warmup = 10;
  config.final_rate = 0.1;
  for (const int64_t step : {1, 5, 10, 50, 100}) {
    const double progress = static_cast<double>(step - 1) / 100;
    EXPECT_NEAR(muon_rate(config, step, 100, progress, 0.1) / config.muon_rate,
                learning_rate(config, step, 100, progress, 0.1) / config.learning_rate, 1e-12)
        << step;
  }
  config.learning_rate = 0;
  EXPECT_EQ(muon_rate(config, 10, 100, 0, 0.1), config.muon_rate);
}

}  // namespace
}  // namespace longstride
