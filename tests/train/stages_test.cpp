// Runs that begin with shorter contexts or other patterns: stages begin where they should, resume to the very
// bits, take the memory that was planned; schedules that make no sense are refused.
#include "longstride/run/stages.h"

#include <set>

#include "longstride/base/check.h"
#include "longstride/run/run_directory.h"
#include "longstride/train/memory.h"
#include "longstride/train/schedule.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;

class StagesTest : public TrainerTest {
 protected:
  StagesTest() {
    config_.train.context_schedule = "16 until 0.25; 32 until 0.5";
    config_.train.pattern_schedule = "block:8 until 0.375";
  }

  std::string refusal() const {
    try {
      config_.check();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(StagesTest, KeepTheBytesOfAStepAndTheShapesOfWeights) {
  const std::vector<Stage> stages = stages_of(config_);
  ASSERT_EQ(stages.size(), 4U);
  const double from[] = {0, 0.25, 0.375, 0.5};
  const int64_t contexts[] = {16, 32, 32, 64};
  for (size_t i = 0; i < 4; ++i) {
    const RunConfig& stage = stages[i].config;
    EXPECT_EQ(stages[i].from, from[i]);
    EXPECT_EQ(stage.model.context, contexts[i]);
    EXPECT_EQ(stage.model.pattern, i < 2 ? "block:8" : "fixed:16,4");
    EXPECT_EQ(stage.train.batch * stage.model.context, 4 * 64);
    EXPECT_EQ(stage.train.micro() * stage.model.context, 2 * 64);
    EXPECT_EQ(stage.model.axes(), config_.model.axes());
    EXPECT_EQ(count_parameters(stage.model), count_parameters(config_.model));
  }
}

TEST_F(StagesTest, SwitchAtTheirStepsAndTellThem) {
  const TrainSummary summary = train("a", config_);
  EXPECT_THAT(notes_, HasSubstr("step 1: context 16, pattern block:8, batch 16\n"));
  EXPECT_THAT(notes_, HasSubstr("step 7: context 32, pattern block:8, batch 8\n"));
  EXPECT_THAT(notes_, HasSubstr("step 10: context 32, pattern fixed:16,4, batch 8\n"));
  EXPECT_THAT(notes_, HasSubstr("step 13: context 64, pattern fixed:16,4, batch 4\n"));
  EXPECT_EQ(summary.state.stage_step, 12);
  EXPECT_GT(summary.state.best_step, 12);  // of the last stage
  EXPECT_LT(summary.train_bits, 7);
  std::ifstream metrics(run("a") + "/metrics.jsonl");
  const std::string text{std::istreambuf_iterator<char>(metrics), {}};
  EXPECT_THAT(text, HasSubstr("train/context"));
}

TEST_F(StagesTest, GoOnToTheVeryBitsFromEveryStep) {
  config_.train.checkpoint_every = 1;
  config_.train.keep_last = 100;
  train("whole", config_);
  for (const int64_t step : {3, 6, 7, 9, 12, 13}) {
    const std::string name = fmt::format("cut{}", step);
    train(name, config_);
    discard_checkpoints_after(run(name), step);
    train(name, config_);
    for (const int64_t there : {step + 1, int64_t{24}}) {
      const OpenCheckpoint a(find_checkpoint(run("whole"), there)), b(find_checkpoint(run(name), there));
      expect_same_tensors(a, b);
      EXPECT_EQ(TrainState::from_metadata(a.metadata()).stage_step,
                TrainState::from_metadata(b.metadata()).stage_step);
      EXPECT_EQ(TrainState::from_metadata(a.metadata()).best_step,
                TrainState::from_metadata(b.metadata()).best_step);
    }
  }
}

TEST_F(StagesTest, TakeTheMemoryThatWasPlanned) {
  for (const char* positions : {"paper", "released", "rotary"}) {
    config_.model.positions = positions;
    config_.model.value_residual = positions == std::string("rotary") ? 0.4 : 0;
    config_.model.convolution = positions == std::string("released") ? 0 : 4;
    const Splits splits = open_splits(config_.data);
    Trainer trainer(config_, splits);
    int64_t most = 0;
    while (trainer.progress() < 1) {
      const RunConfig& stage = trainer.stage();
      const MemoryPlan plan = plan_memory(stage.model, training_plan(stage), true);
      EXPECT_EQ(trainer.model().workspace_bytes(), plan.activations + plan.temporaries);
      EXPECT_EQ(trainer.model().planned_attention_bytes(), plan.plans);
      RunConfig alone = stage;
      alone.train.context_schedule = alone.train.pattern_schedule = "";
      most = std::max(most, training_memory(alone).total());
      trainer.step();
    }
    EXPECT_EQ(training_memory(config_).total(), most);
  }
}

TEST_F(StagesTest, ALongerRunStaysInTheStageThatWasReached) {
  train("a", config_);
  config_.train.steps = 60;
  notes_.clear();
  train("a", config_);
  EXPECT_THAT(notes_, HasSubstr("step 25: context 64"));
  EXPECT_THAT(notes_, testing::Not(HasSubstr("context 32")));
}

TEST_F(StagesTest, StatesWithoutStagesAreThoseOfTheModel) {
  config_.train.context_schedule = config_.train.pattern_schedule = "";
  const Splits splits = open_splits(config_.data);
  std::map<std::string, std::string> metadata = Trainer(config_, splits).contents().metadata;
  for (const char* key : {"train.context", "train.pattern", "train.stage_step"})
    EXPECT_EQ(metadata.erase(key), 1U);
  EXPECT_EQ(TrainState::from_metadata(metadata).stage_step, 0);
}

TEST_F(StagesTest, SchedulesThatMakeNoSenseAreRefused) {
  const auto with = [&](const std::string& contexts, const std::string& patterns) {
    config_.train.context_schedule = contexts, config_.train.pattern_schedule = patterns;
    return refusal();
  };
  EXPECT_THAT(with("32 until 0.5; 16 until 0.25", ""), HasSubstr("does not end after the 0.5 before it"));
  EXPECT_THAT(with("32 until 1.5", ""), HasSubstr("must be above 0 and below 1"));
  EXPECT_EQ(with("24 until 0.5", ""),
            "train.context_schedule: a context of 24 does not divide model.context = 64; 16 does");
  EXPECT_THAT(with("128 until 0.5", ""), HasSubstr("must lie between 1 and model.context = 64"));
  EXPECT_THAT(with("32", ""), HasSubstr("is not of the form VALUE until PROGRESS, as in \"64 until 0.5\""));
  EXPECT_THAT(with("many until 0.5", ""), HasSubstr("train.context_schedule"));
  EXPECT_THAT(with("", "checkers:8 until 0.5"), HasSubstr("train.pattern_schedule: "));
  EXPECT_EQ(with("32 until 0.5", "block:8|dense until 0.1"), "no error");
}

TEST_F(StagesTest, PiecesOfWindowsComeOnceEach) {
  const Splits splits = open_splits(config_.data);
  const BatchLoader loader(splits.train, 64, 4, 1);
  std::multiset<std::string> whole, cut;
  std::string tokens(256, 0);
  for (int64_t step = 0; step < 4; ++step) {
    loader.load(step, reinterpret_cast<uint8_t*>(tokens.data()));
    for (size_t at = 0; at < 256; at += 16) whole.insert(tokens.substr(at, 16));
    loader.load_pieces(step, 4, reinterpret_cast<uint8_t*>(tokens.data()));
    for (size_t at = 0; at < 256; at += 16) cut.insert(tokens.substr(at, 16));
  }
  EXPECT_EQ(whole, cut);
}

TEST(Schedule, LinearGoesStraightToTheFinalRate) {
  TrainConfig config;
  config.warmup = 10;
  config.decay = "linear";
  config.final_rate = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(config, 55, 100, 0.55, 0.1), config.learning_rate * 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(config, 101, 100, 1, 0.1), config.learning_rate * 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(config, 5, 100, 0.05, 0.1), config.learning_rate * 0.5);
}

}  // namespace
}  // namespace longstride
