// Steps out of the ordinary change nothing, are counted and told, and many in a row end the training.
#include "longstride/train/spike_watch.h"

#include <fstream>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;

TEST(SpikeWatch, TheLimitIsTheMedianAndDeviationsThatSpikesDoNotChange) {
  SpikeWatch watch;
  EXPECT_EQ(watch.middle(), 8);
  for (int i = 0; i < 15; ++i) watch.add(2 + 0.1 * (i % 3));
  EXPECT_EQ(watch.limit(6), std::numeric_limits<double>::infinity());
  watch.add(2);
  // Median 2.1, distances 0, 0.1: their median is 0.1.
  EXPECT_NEAR(watch.limit(6), 2.1 + 6 * 0.14826, 1e-9);
  for (int i = 0; i < 6; ++i) watch.add(100);
  EXPECT_LT(watch.limit(6), 4);
  for (int i = 0; i < 64; ++i) watch.add(1);  // the window moves on
  EXPECT_NEAR(watch.limit(6), 1.06, 1e-9);    // never less than a hundredth of a bit each
  watch.restart();
  EXPECT_EQ(watch.middle(), 8);
}

TEST(SpikeWatch, TextKeepsEveryBitAndOthersAreRefused) {
  SpikeWatch watch;
  for (int i = 0; i < 70; ++i) watch.add(1.0 / (3 + i));
  EXPECT_EQ(SpikeWatch::from_text(watch.to_text()).limit(5), watch.limit(5));
  EXPECT_EQ(SpikeWatch::from_text(watch.to_text()).to_text(), watch.to_text());
  EXPECT_EQ(SpikeWatch::from_text("").to_text(), "");
  for (const std::string& text : {std::string("x"), std::string("-0x1p+0"), std::string("nan"),
                                  std::string("inf"), std::string("0x1p+0 "), watch.to_text() + " 0x1p+0"})
    EXPECT_THAT(message_of<Error>([&] { SpikeWatch::from_text(text); }), HasSubstr("train.recent_losses"))
        << text;
}

class SpikesTest : public TrainerTest {
 protected:
  SpikesTest() {
    // Two places of noise in a text that is learnt quickly.
    std::string text(20000, 'a');
    for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 4);
    const RandomStream random{5, 0, 0};
    for (const size_t begin : {5000, 12000})
      for (size_t i = 0; i < 128; ++i) text[begin + i] = static_cast<char>(random.block(begin + i)[0]);
    std::ofstream(directory_ / "text.txt") << text;
    config_.train.steps = 140;
    config_.train.checkpoint_every = 20;
    config_.train.dropout = 0;
    config_.train.learning_rate = 1e-3;
    config_.train.skip_spikes = 6;
  }
};

TEST_F(SpikesTest, ASkippedStepChangesNothingButTheCount) {
  Trainer trainer(config_, open_splits(config_.data));
  int64_t skipped = 0;
  for (int i = 0; i < 140; ++i) {
    const std::string before = bits_of(trainer);
    const StepReport report = trainer.step();
    EXPECT_EQ(report.skipped, !report.spike.empty());
    EXPECT_EQ(bits_of(trainer) == before, report.skipped) << report.step;
    EXPECT_EQ(trainer.state().step, i + 1);
    if (report.skipped) {
      ++skipped;
      EXPECT_THAT(report.spike, testing::MatchesRegex("a loss of .* bits, above .*"));
    }
  }
  EXPECT_GT(skipped, 0);
  EXPECT_LT(skipped, 40);
  EXPECT_EQ(trainer.state().skipped, skipped);
}

TEST_F(SpikesTest, ARunThatSkipsGoesOnToTheSameBitsAndTells) {
  const TrainSummary whole = train("whole", config_);
  EXPECT_GT(whole.state.skipped, 0);
  EXPECT_THAT(notes_, HasSubstr("skipped    step "));
  EXPECT_THAT(read_bytes(run("whole") + "/metrics.jsonl"), HasSubstr("\"train/skipped_steps\":"));
  RunConfig part = config_;
  // The schedule has all steps; the run ends early and goes on.
  TrainObserver observer;
  observer.show_progress = false;
  observer.after_step = [](const StepReport& report, const Trainer&, std::optional<double>) {
    return report.step != 97;
  };
  train_run(run("part"), part, -1, observer);
  train("part", part);
  EXPECT_TRUE(read_bytes(run("part") + "/model.safetensors") ==
              read_bytes(run("whole") + "/model.safetensors"));
  const auto state = [&](const std::string& name) {
    return TrainState::from_metadata(OpenCheckpoint(find_checkpoint(run(name), 140)).metadata());
  };
  EXPECT_EQ(state("part").losses.to_text(), state("whole").losses.to_text());
  EXPECT_EQ(state("part").skipped, state("whole").skipped);
}

TEST_F(SpikesTest, OffNothingIsSkippedAndTheStateIsAsItWas) {
  config_.train.skip_spikes = 0;
  Trainer trainer(config_, open_splits(config_.data));
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(trainer.step().skipped);
  EXPECT_FALSE(trainer.state().to_metadata().contains("train.recent_losses"));
}

TEST_F(SpikesTest, ManySkippedStepsInARowEndTheRunAtTheLastGoodCheckpoint) {
  config_.train.most_skips = 1;
  std::string message;
  try {
    train("a", config_);
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message,
              testing::MatchesRegex("step [0-9]+: a loss of .* bits, above .*; skipped in a row: 1 .*"));
  EXPECT_THAT(message, testing::AllOf(HasSubstr("(train.most_skips)"), HasSubstr("lower train.learning_rate"),
                                      HasSubstr("last checkpoint")));
  const IntactCheckpoint newest = newest_intact(run("a"));
  ASSERT_TRUE(newest.found);
  const int64_t failed = std::stoll(message.substr(5));
  EXPECT_LT(newest.found->step, failed);
  EXPECT_GE(newest.found->step, (failed - 1) / 20 * 20);
  // With what it says to change it goes on.
  config_.train.skip_spikes = 1e6;
  EXPECT_TRUE(train("a", config_).complete);
}

TEST_F(SpikesTest, LossesThatAreNotFiniteAreSkippedToo) {
  const std::string text = [this] {
    config_.train.skip_spikes = 6;
    diverge();
    return notes_;
  }();
  EXPECT_THAT(text, testing::ContainsRegex("skipped    step [0-9]+: the loss is not finite; 1 so far"));
  EXPECT_THAT(read_bytes(run("a") + "/metrics.jsonl"), testing::Not(HasSubstr("null")));
}

}  // namespace
}  // namespace longstride
