#include "longstride/checkpoint/checkpoint.h"

#include <cmath>
#include <csignal>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A model of `count` weights whose values depend on the step, and its state.
class Sample {
 public:
  Sample(int64_t step, size_t count) : weights_(count), moments_(count), step_(step) {
    std::iota(weights_.begin(), weights_.end(), static_cast<float>(step));
    std::iota(moments_.begin(), moments_.end(), static_cast<float>(-step));
  }
  CheckpointContents contents() {
    const auto count = static_cast<int64_t>(weights_.size());
    CheckpointContents contents;
    contents.model = {{"w", Tensor(weights_.data(), DType::f32, {count})}};
    contents.state = {{"m.w", Tensor(moments_.data(), DType::f32, {count})}};
    contents.metadata = {{"step", std::to_string(step_)}, {"config", "[model]\nlayers = 3\n"}};
    return contents;
  }

 private:
  std::vector<float> weights_, moments_;
  int64_t step_;
};

std::string save(const std::string& run, int64_t step, size_t count = 4) {
  Sample sample(step, count);
  return save_checkpoint(run, step, sample.contents());
}

std::vector<int64_t> steps_of(const std::string& run) {
  std::vector<int64_t> steps;
  for (const CheckpointInfo& info : list_checkpoints(run)) steps.push_back(info.step);
  return steps;
}

TEST(Checkpoint, RoundTrip) {
  const TemporaryFolder run;
  EXPECT_THAT(steps_of(run.path()), IsEmpty());
  EXPECT_THAT(steps_of(run / "missing"), IsEmpty());
  prepare_run_directory(run.path());
  EXPECT_EQ(save(run.path(), 1234), run / "checkpoints/step-00001234");
  save(run.path(), 7);
  save(run.path(), 123456789012);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(7, 1234, 123456789012));
  EXPECT_THAT(names_in(run / "checkpoints/step-00001234"),
              ElementsAre("checksums.json", "model.safetensors", "state.safetensors"));
  const OpenCheckpoint checkpoint(find_checkpoint(run.path(), 1234));
  EXPECT_EQ(checkpoint.step(), 1234);
  EXPECT_EQ(checkpoint.model().find("w").as<float>()[2], 1236.0f);
  EXPECT_EQ(checkpoint.state().find("m.w").as<float>()[3], -1231.0f);
  EXPECT_EQ(checkpoint.metadata(), (Metadata{{"step", "1234"}, {"config", "[model]\nlayers = 3\n"}}));
  EXPECT_EQ(checkpoint.model().metadata(), (Metadata{{"format", "pt"}, {"step", "1234"}}));
  EXPECT_THAT(message_of<Error>([&] { find_checkpoint(run.path(), 8); }),
              HasSubstr("no checkpoint of step 8; there are those of steps 7, 1234, 123456789012"));
  EXPECT_THROW(save(run.path(), -1), Error);
}

TEST(Checkpoint, TheSameStepIsReplaced) {
  const TemporaryFolder run;
  save(run.path(), 5, 4);
  const OpenCheckpoint old(find_checkpoint(run.path(), 5));
  save(run.path(), 5, 9);
  EXPECT_EQ(OpenCheckpoint(find_checkpoint(run.path(), 5)).model().find("w").count(), 9);
  EXPECT_EQ(old.model().find("w").count(), 4);
  EXPECT_EQ(old.model().find("w").as<float>()[3], 8.0f);  // a mapped file stays readable
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000005"));
}

TEST(Checkpoint, OnlyWholeFoldersWithProperNamesAreListed) {
  const TemporaryFolder run;
  save(run.path(), 3);
  for (const char* name :
       {"step-3", "step-0000000003", "step-00000004x", "step--0000001", "other", "step-00000009"})
    std::filesystem::copy(run / "checkpoints/step-00000003", (run / "checkpoints/") + name);
  std::filesystem::remove(run / "checkpoints/step-00000009/checksums.json");
  EXPECT_THAT(steps_of(run.path()), ElementsAre(3));
}

TEST(Checkpoint, EveryFlippedBitIsFoundAtOpen) {
  const TemporaryFolder run;
  save(run.path(), 1);
  save(run.path(), 2);
  const CheckpointInfo info = find_checkpoint(run.path(), 2);
  for (const char* name : {"model.safetensors", "state.safetensors", "checksums.json"}) {
    const std::string path = info.path + "/" + name, sound = read_bytes(path);
    for (size_t bit = 0; bit < sound.size() * 8; ++bit) {
      std::string flipped = sound;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      write_bytes(path, flipped);
      const std::string message = message_of<Error>([&] { OpenCheckpoint checkpoint(info); });
      // A flipped bit in checksums.json itself shows as a file that does not match it.
      const std::string blamed = std::string(name) == "checksums.json" ? info.path : path;
      ASSERT_THAT(message,
                  AllOf(HasSubstr(blamed), Not(HasSubstr("\n")),
                        HasSubstr("the checkpoint is damaged; resume from an older one with --step N: "
                                  "step-00000001")))
          << name << " bit " << bit;
    }
    write_bytes(path, sound);
  }
  OpenCheckpoint checkpoint(info);
}

TEST(Checkpoint, EveryTruncationIsFoundAtOpenEvenWithoutChecksums) {
  const TemporaryFolder run;
  save(run.path(), 2);
  const CheckpointInfo info = find_checkpoint(run.path(), 2);
  for (const char* name : {"model.safetensors", "state.safetensors", "checksums.json"}) {
    const std::string path = info.path + "/" + name, sound = read_bytes(path);
    for (size_t length = 0; length < sound.size(); ++length) {
      write_bytes(path, sound.substr(0, length));
      for (const Verify verify : {Verify::checksums, Verify::sizes})
        ASSERT_THAT(message_of<Error>([&] { OpenCheckpoint checkpoint(info, verify); }),
                    AllOf(HasSubstr(path), HasSubstr("damaged and there is no older one")))
            << length;
    }
    write_bytes(path, sound);
  }
  write_bytes(info.path + "/model.safetensors", read_bytes(info.path + "/model.safetensors") + "x");
  EXPECT_THROW(OpenCheckpoint checkpoint(info), Error);
}

TEST(Checkpoint, NewestIntactPassesOverTheDamaged) {
  const TemporaryFolder run;
  EXPECT_FALSE(newest_intact(run.path()).found);
  for (const int64_t step : {10, 20, 30}) save(run.path(), step);
  EXPECT_EQ(newest_intact(run.path()).found->step, 30);
  EXPECT_THAT(newest_intact(run.path()).warnings, IsEmpty());
  write_bytes(run / "checkpoints/step-00000030/state.safetensors", "");
  const IntactCheckpoint intact = newest_intact(run.path());
  ASSERT_TRUE(intact.found);
  EXPECT_EQ(intact.found->step, 20);
  EXPECT_THAT(intact.warnings, ElementsAre(HasSubstr("passing over step-00000030: ")));
  write_bytes(run / "checkpoints/step-00000010/state.safetensors", "");
  write_bytes(run / "checkpoints/step-00000020/model.safetensors", "");
  EXPECT_FALSE(newest_intact(run.path()).found);
  EXPECT_EQ(newest_intact(run.path()).warnings.size(), 3u);
}

TEST(Checkpoint, BestIsRemembered) {
  const TemporaryFolder run;
  EXPECT_FALSE(read_best(run.path()));
  mark_best(run.path(), 20, 0.1 + 0.2);
  ASSERT_TRUE(read_best(run.path()));
  EXPECT_EQ(read_best(run.path())->step, 20);
  EXPECT_EQ(read_best(run.path())->value, 0.1 + 0.2);
  EXPECT_THROW(mark_best(run.path(), 30, std::numeric_limits<double>::quiet_NaN()), Error);
  EXPECT_EQ(read_best(run.path())->step, 20);
  for (const char* text : {"", "{", "[]", "{\"step\": 3}", "{\"step\": \"x\", \"value\": 1}"}) {
    write_bytes(run / "best.json", text);
    EXPECT_THAT(message_of<Error>([&] { read_best(run.path()); }), HasSubstr(run / "best.json")) << text;
  }
}

TEST(Checkpoint, AnAmendmentReplacesMetadataUntilTheStepIsSavedAgain) {
  const TemporaryFolder run;
  save(run.path(), 5);
  amend_checkpoint(run.path(), 5, {{"step", "6"}, {"more", "x"}});
  const auto metadata = [&] { return OpenCheckpoint(find_checkpoint(run.path(), 5)).metadata(); };
  EXPECT_EQ(metadata().at("step"), "6");
  EXPECT_EQ(metadata().at("more"), "x");
  EXPECT_EQ(metadata().at("config"), "[model]\nlayers = 3\n");
  // A damaged amendment counts as none.
  const std::string path = run / "checkpoints/step-00000005/amended.json", sound = read_bytes(path);
  for (size_t at = 0; at < sound.size(); ++at) {
    std::string damaged = sound;
    damaged[at] ^= 1;
    write_bytes(path, damaged);
    EXPECT_EQ(metadata().at("step"), "5") << at;
  }
  write_bytes(path, sound);
  save(run.path(), 5);
  EXPECT_EQ(metadata().at("step"), "5");
}

TEST(Checkpoint, PinnedWeightsStayWhateverIsRemoved) {
  const TemporaryFolder run;
  save(run.path(), 10);
  save(run.path(), 20);
  pin_model(run.path(), 10, "0123456789abcdef0123",
            find_checkpoint(run.path(), 10).path + "/model.safetensors");
  pin_model(run.path(), 20, "aaaaaaaaaaaaaaaaaaaa",
            find_checkpoint(run.path(), 20).path + "/model.safetensors");
  prune_checkpoints(run.path(), 1);
  discard_checkpoints_after(run.path(), 10);
  EXPECT_THAT(steps_of(run.path()), IsEmpty());
  for (const int64_t step : {10, 20}) {
    const std::vector<std::string> pins = pinned_models(run.path(), step);
    ASSERT_EQ(pins.size(), 1u);
    EXPECT_EQ(SafetensorsFile(pins[0]).find("w").as<float>()[0], static_cast<float>(step));
  }
  EXPECT_THAT(pinned_models(run.path(), 30), IsEmpty());
}

TEST(Checkpoint, ANumberBeyondAllStepsIsNoBestStep) {
  const TemporaryFolder run;
  for (const char* text : {"{\"step\": 1e300, \"value\": 1}", "{\"step\": -3, \"value\": 1}",
                           "{\"step\": 18446744073709551615, \"value\": 1}"}) {
    write_bytes(run / "best.json", text);
    EXPECT_THAT(message_of<Error>([&] { read_best(run.path()); }), HasSubstr("is damaged")) << text;
  }
}

TEST(Checkpoint, PruningKeepsTheNewestAndTheBest) {
  const TemporaryFolder run;
  for (const int64_t step : {10, 20, 30, 40, 50}) save(run.path(), step);
  EXPECT_THROW(prune_checkpoints(run.path(), 0), Error);
  mark_best(run.path(), 20, 1.5);
  prune_checkpoints(run.path(), 2);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(20, 40, 50));
  prune_checkpoints(run.path(), 7);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(20, 40, 50));
  prune_checkpoints(run.path(), 1, false);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(50));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000050"));
}

TEST(Checkpoint, ResumingFromAnOldStepDiscardsTheLaterCourse) {
  const TemporaryFolder run;
  for (const int64_t step : {10, 20, 30}) save(run.path(), step);
  mark_best(run.path(), 20, 1.5);
  discard_checkpoints_after(run.path(), 20);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(10, 20));
  EXPECT_TRUE(read_best(run.path()));
  discard_checkpoints_after(run.path(), 19);
  EXPECT_THAT(steps_of(run.path()), ElementsAre(10));
  EXPECT_FALSE(read_best(run.path()));
}

TEST(Checkpoint, ThePublishedModelStaysWhenItsCheckpointGoes) {
  const TemporaryFolder run;
  save(run.path(), 10);
  save(run.path(), 20);
  publish_model(run.path(), 10);
  publish_model(run.path(), 10);
  EXPECT_EQ(read_bytes(run / "model.safetensors"),
            read_bytes(run / "checkpoints/step-00000010/model.safetensors"));
  prune_checkpoints(run.path(), 1);
  EXPECT_EQ(SafetensorsFile(run / "model.safetensors").find("w").as<float>()[0], 10.0f);
  publish_model(run.path(), 20);
  EXPECT_EQ(SafetensorsFile(run / "model.safetensors").find("w").as<float>()[0], 20.0f);
  EXPECT_THROW(publish_model(run.path(), 30), Error);
  EXPECT_THAT(names_in(run.path()), ElementsAre("checkpoints", "model.safetensors"));
}

TEST(Checkpoint, NoSpaceLeavesTheOlderOnesAndNothingElse) {
  const TemporaryFolder run;
  save(run.path(), 10, 100'000);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{300'000, before.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  const std::string message = message_of<Error>([&] { save(run.path(), 20, 100'000); });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_THAT(message, HasSubstr(run / "checkpoints/step-00000020/model.safetensors"));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"));
  write_bytes(run / "file", "");
  EXPECT_THAT(message_of<Error>([&] { save(run / "file", 1); }), HasSubstr(run / "file"));
}

// Saves, replaces, marks, publishes and prunes until it is killed.
[[noreturn]] void train_until_killed(const std::string& run, int64_t step) {
  for (;; ++step) {
    save(run, step, 50'000);
    save(run, step, 50'000);
    mark_best(run, step - step % 5, 1.0);
    publish_model(run, step);
    prune_checkpoints(run, 3);
  }
}

TEST(Checkpoint, AKilledRunLeavesOnlyIntactCheckpoints) {
  const TemporaryFolder run;
  prepare_run_directory(run.path());
  save(run.path(), 1, 50'000);
  publish_model(run.path(), 1);
  mark_best(run.path(), 1, 1.0);
  std::mt19937 random(17);
  int left_a_temporary = 0;
  for (int trial = 0; trial < 30; ++trial) {
    const int64_t newest = list_checkpoints(run.path()).back().step;
    const pid_t child = fork();
    if (child == 0) train_until_killed(run.path(), newest + 1);
    usleep(random() % 40'000);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended before it was killed";

    const std::vector<CheckpointInfo> listed = list_checkpoints(run.path());
    ASSERT_FALSE(listed.empty());
    EXPECT_GE(listed.back().step, newest);
    for (const CheckpointInfo& info : listed) {
      const OpenCheckpoint checkpoint(info);
      EXPECT_EQ(checkpoint.model().find("w").as<float>()[0], static_cast<float>(info.step));
      EXPECT_EQ(checkpoint.metadata().at("step"), std::to_string(info.step));
    }
    EXPECT_EQ(SafetensorsFile(run / "model.safetensors").find("w").count(), 50'000);
    EXPECT_TRUE(read_best(run.path()));

    left_a_temporary += remove_stale_temporaries(run.path()) + remove_stale_temporaries(run / "checkpoints");
    for (const std::string& name : names_in(run / "checkpoints")) EXPECT_THAT(name, HasSubstr("step-"));
    EXPECT_THAT(names_in(run.path()), ElementsAre("best.json", "checkpoints", "model.safetensors"));
  }
  EXPECT_GT(left_a_temporary, 0) << "no kill fell into the middle of a save";
}

}  // namespace
}  // namespace longstride
