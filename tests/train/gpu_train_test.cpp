// Training on a GPU: it follows the CPU, resumes to the very bits, moves between devices, and takes the
// memory that was planned. Skipped where there is no GPU.
#include <cmath>

#include "longstride/device/backend.h"
#include "longstride/train/memory.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

class GpuTrainTest : public TrainerTest {
 protected:
  void SetUp() override {
    const std::string reason = backend(DeviceKind::cuda).why_not(0);
    if (!reason.empty()) GTEST_SKIP() << reason;
    config_.compute.device = "cuda";
    config_.train.validate_every = 0;
    config_.train.keep_last = 100;
  }

  RunConfig on(const std::string& device, const std::string& precision) const {
    RunConfig config = config_;
    config.compute.device = device;
    config.compute.precision = precision;
    return config;
  }

  // Bits of each of the first steps.
  std::vector<double> curve(const RunConfig& config, int64_t steps) const {
    const Splits splits = open_splits(config.data);
    Trainer trainer(config, splits);
    std::vector<double> bits;
    for (int64_t step = 0; step < steps; ++step) bits.push_back(trainer.step().bits);
    return bits;
  }

  void expect_same_checkpoints(const std::string& a, const std::string& b, int64_t step) const {
    expect_same_tensors(OpenCheckpoint(find_checkpoint(run(a), step)),
                        OpenCheckpoint(find_checkpoint(run(b), step)));
  }
};

void expect_curves_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << "step " << i + 1;
}

TEST_F(GpuTrainTest, FollowsTheCpuFor200Steps) {
  config_.train.steps = 200;
  const std::vector<double> cpu = curve(on("cpu", "f32"), 200);
  EXPECT_LT(cpu.back(), 4.0);
  expect_curves_near(curve(on("cuda", "f32"), 200), cpu, 0.02);
  expect_curves_near(curve(on("cuda", "bf16"), 200), cpu, 0.06);
  expect_curves_near(curve(on("cuda", "f16"), 200), cpu, 0.06);
}

TEST_F(GpuTrainTest, MuonFollowsTheCpu) {
  config_.train.optimizer = "muon";
  config_.train.steps = 100;
  const std::vector<double> cpu = curve(on("cpu", "f32"), 100);
  EXPECT_LT(cpu.back(), 4.0);
  expect_curves_near(curve(on("cuda", "f32"), 100), cpu, 0.02);
  expect_curves_near(curve(on("cuda", "bf16"), 100), cpu, 0.08);
  expect_curves_near(curve(on("cuda", "f16"), 100), cpu, 0.08);
}

TEST_F(GpuTrainTest, MovesFromTheCpuAndBack) {
  config_.compute.precision = "f32";
  const TrainSummary stayed = train("cpu", on("cpu", "f32"));
  RunConfig first = on("cpu", "f32"), second = on("cuda", "f32");
  train("moved", first);
  discard_checkpoints_after(run("moved"), 8);
  train("moved", second);
  discard_checkpoints_after(run("moved"), 16);
  const TrainSummary moved = train("moved", first);
  EXPECT_THAT(notes_, testing::HasSubstr("resuming from step 16 of 24"));
  EXPECT_NEAR(moved.train_bits, stayed.train_bits, 0.01);
}

// Each stage records a graph of its own after its first step.
TEST_F(GpuTrainTest, StagesFollowTheCpu) {
  config_.train.steps = 60;
  config_.train.context_schedule = "16 until 0.25; 32 until 0.5";
  config_.train.pattern_schedule = "block:8 until 0.4";
  const std::vector<double> cpu = curve(on("cpu", "f32"), 60);
  expect_curves_near(curve(on("cuda", "f32"), 60), cpu, 0.02);
  expect_curves_near(curve(on("cuda", "bf16"), 60), cpu, 0.06);
}

class GpuResumeTest : public GpuTrainTest, public testing::WithParamInterface<const char*> {
 protected:
  void expect_the_same_bits() {
    train("whole", config_);
    train("again", config_);
    expect_same_checkpoints("whole", "again", 24);
    train("cut", config_);
    discard_checkpoints_after(run("cut"), 12);
    train("cut", config_);
    for (int64_t step : {16, 24}) expect_same_checkpoints("whole", "cut", step);
  }
};

TEST_P(GpuResumeTest, TheSameBitsTwiceAndAfterAResume) {
  config_.compute.precision = GetParam();
  expect_the_same_bits();
}

TEST_P(GpuResumeTest, TheSameBitsTwiceAndAfterAResumeWithMuon) {
  config_.train.optimizer = "muon";
  config_.compute.precision = GetParam();
  expect_the_same_bits();
}

TEST_P(GpuResumeTest, TheSameBitsTwiceAndAfterAResumeWithMixedValues) {
  config_.model.layers = 3, config_.model.value_residual = 0.4;
  config_.compute.precision = GetParam();
  expect_the_same_bits();
}

TEST_P(GpuResumeTest, TheSameBitsTwiceAndAfterAResumeWithConvolutions) {
  config_.model.layers = 3, config_.model.value_residual = 0.4, config_.model.convolution = 4;
  config_.train.optimizer = "muon";
  config_.compute.precision = GetParam();
  expect_the_same_bits();
}

INSTANTIATE_TEST_SUITE_P(Precisions, GpuResumeTest, testing::Values("f32", "bf16", "f16"));

TEST_F(GpuTrainTest, KeepingRecomputingAndOffloadingGiveTheSameBits) {
  config_.model.layers = 7;
  config_.train.steps = 6;
  config_.train.checkpoint_every = 6;
  for (const auto& [share, convolution] : {std::pair{0.0, 0}, {0.4, 0}, {0.0, 4}}) {
    config_.model.value_residual = share, config_.model.convolution = convolution;
    const std::string values = share > 0 ? "-mixed" : convolution > 0 ? "-convolved" : "";
    for (const char* activations : {"keep", "recompute", "offload"}) {
      config_.train.activations = activations;
      train(activations + values, config_);
    }
    expect_same_checkpoints("keep" + values, "recompute" + values, 6);
    expect_same_checkpoints("keep" + values, "offload" + values, 6);
  }
}

TEST_F(GpuTrainTest, F16LearnsAndKeepsItsLossScale) {
  config_.compute.precision = "f16";
  config_.train.steps = 120;
  config_.train.checkpoint_every = 60;
  const TrainSummary summary = train("a", config_);
  EXPECT_LT(summary.train_bits, 4.0);
  EXPECT_LT(summary.state.skipped, 20);
  EXPECT_NE(summary.state.loss_scale, 65536);
  const TrainState state =
      TrainState::from_metadata(OpenCheckpoint(find_checkpoint(run("a"), 120)).metadata());
  EXPECT_EQ(state.loss_scale, summary.state.loss_scale);
  EXPECT_EQ(state.skipped, summary.state.skipped);
}

TEST_F(GpuTrainTest, F16OverflowsAreSkippedAndAStormEndsTheRun) {
  config_.compute.precision = "f16";
  config_.train.steps = 200;
  const Splits splits = open_splits(config_.data);
  Trainer trainer(config_, splits);
  // Too much by far, but halved often enough it fits again.
  trainer.state().loss_scale = 0x1p40;
  StepReport report = trainer.step();
  EXPECT_TRUE(report.skipped);
  EXPECT_EQ(trainer.state().loss_scale, 0x1p39);
  EXPECT_NEAR(report.bits, 8, 1e-3);
  while (report.skipped && report.step < 49) report = trainer.step();
  EXPECT_FALSE(report.skipped);
  EXPECT_EQ(trainer.state().skipped, report.step - 1);
  for (int i = 0; i < 3; ++i) trainer.step();

  // No halving helps here.
  trainer.state().loss_scale = 0x1p120;
  const double before = trainer.validate(0).nats;
  const int64_t begin = trainer.state().step;
  std::string message;
  try {
    for (int i = 0; i < 60; ++i) trainer.step();
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, testing::HasSubstr("the gradients overflowed f16 in 50 steps in a row"));
  EXPECT_THAT(message, testing::HasSubstr("compute.precision = \"bf16\""));
  EXPECT_EQ(trainer.state().step, begin + 49);
  EXPECT_EQ(trainer.validate(0).nats, before);
}

TEST_F(GpuTrainTest, PlanningTakesNoMemoryOfTheGpu) {
  config_.model.context = 4096;
  config_.model.pattern = "strided:64";
  training_memory(config_);  // whatever is made once
  const int64_t free = backend(DeviceKind::cuda).memory(0).free;
  for (int i = 0; i < 3; ++i) training_memory(config_);
  EXPECT_EQ(backend(DeviceKind::cuda).memory(0).free, free);
}

TEST_F(GpuTrainTest, TakesTheMemoryThatWasPlanned) {
  std::ofstream(directory_ / "text.txt") << babble(200000);
  config_.model.context = 8192;
  config_.model.layers = 12;
  config_.model.heads = 8;
  config_.model.width = 512;
  config_.model.pattern = "fixed:128,32";
  config_.train.batch = config_.train.micro_batch = 2;
  config_.train.steps = 4;
  for (const char* optimizer : {"adam", "muon"})
    for (const char* activations : {"keep", "recompute"}) {
      config_.train.optimizer = optimizer;
      config_.train.activations = activations;
      const TrainSummary summary = train(fmt::format("{}-{}", optimizer, activations), config_);
      const auto planned = static_cast<double>(summary.planned_memory);
      EXPECT_NEAR(static_cast<double>(summary.peak_memory), planned, 0.05 * planned)
          << optimizer << ", " << activations;
    }
}

TEST_F(GpuTrainTest, SaysWhichSettingsWouldFit) {
  config_.model.context = 65536;
  config_.model.layers = 48;
  config_.model.heads = 8;
  config_.model.width = 512;
  config_.model.pattern = "window:128";
  config_.train.batch = config_.train.micro_batch = 64;
  config_.train.activations = "keep";
  std::string message;
  try {
    check_training_memory(config_);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, testing::HasSubstr("not enough memory on the GPU: training needs"));
  EXPECT_THAT(message, testing::HasSubstr("would fit"));
  EXPECT_THAT(message, testing::HasSubstr("train.micro_batch = "));
  config_.train.batch = config_.train.micro_batch = 70000;
  EXPECT_THROW(check_training_memory(config_), Error);
}

TEST_F(GpuTrainTest, NotFiniteLossStopsAndKeepsTheLastCheckpoint) { expect_last_good_checkpoint(diverge()); }

}  // namespace
}  // namespace longstride
