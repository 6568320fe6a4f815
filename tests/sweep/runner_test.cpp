// Runs on pretended GPUs: each is a process of this test program, which notes the GPU that it sees and does what its name
// says. The run is finished where its file holds its whole name.
#include "longstride/sweep/runner.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "longstride/base/interrupt.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

void sleep_ms(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// What a run does, in the folder LONGSTRIDE_TEST_SWEEP; called by the cases below alone.
void pretend_to_train(const std::string& name) {
  const std::string folder = std::getenv("LONGSTRIDE_TEST_SWEEP");
  const char* gpu = std::getenv("CUDA_VISIBLE_DEVICES");
  const InterruptGuard interrupts;
  const bool again = fs::exists(folder + "/" + name);
  std::ofstream(folder + "/" + name) << "begun";
  std::ofstream(folder + "/" + name + ".gpu", std::ios::app) << (gpu != nullptr ? gpu : "all") << "\n";
  // Until two go on at the same time, or for some seconds.
  if (name.starts_with("pair"))
    for (int i = 0; i < 2000 && fs::exists(folder + "/alone"); ++i) sleep_ms(5);
  if (name.starts_with("fails")) {
    fprintf(stderr, "longstride: the loss is not finite\n");
    fflush(stderr);
    _exit(1);
  }
  if (name.starts_with("dies")) raise(SIGKILL);
  if (gpu != nullptr && std::string(gpu) == "slow") sleep_ms(700);
  if (gpu != nullptr && std::string(gpu) == "broken later") sleep_ms(400);
  if ((gpu != nullptr && std::string(gpu).starts_with("broken")) || name.starts_with("breaks")) {
    fprintf(stderr,
            "longstride: GPU: an illegal memory access was encountered (cudaErrorIllegalAddress) in "
            "cudaMemcpyAsync\n");
    fflush(stderr);
    _exit(1);
  }
  if (name.starts_with("long") && !again)
    for (int i = 0; i < 6000 && !InterruptGuard::requested(); ++i) sleep_ms(5);
  if (InterruptGuard::requested()) _exit(128 + InterruptGuard::signal_number());
  std::ofstream(folder + "/" + name) << name;
}
TEST(SweepRun, DISABLED_pair1) { pretend_to_train("pair1"); }
TEST(SweepRun, DISABLED_pair2) { pretend_to_train("pair2"); }
TEST(SweepRun, DISABLED_short) { pretend_to_train("short"); }
TEST(SweepRun, DISABLED_fails) { pretend_to_train("fails"); }
TEST(SweepRun, DISABLED_breaks1) { pretend_to_train("breaks1"); }
TEST(SweepRun, DISABLED_breaks2) { pretend_to_train("breaks2"); }
TEST(SweepRun, DISABLED_dies) { pretend_to_train("dies"); }
TEST(SweepRun, DISABLED_long1) { pretend_to_train("long1"); }
TEST(SweepRun, DISABLED_long2) { pretend_to_train("long2"); }

class SweepRunnerTest : public testing::Test {
 protected:
  void SetUp() override { setenv("LONGSTRIDE_TEST_SWEEP", folder_.path().c_str(), 1); }

  // Trains these runs, and notes what is told.
  void train(const std::vector<std::string>& names, const std::vector<std::string>& gpus) {
    rows_.clear(), told_.clear(), elsewhere_.clear(), most_ = 0;
    for (const std::string& name : names) {
      SweepRow row;
      row.run.name = name;
      row.path = folder_ / name, row.log = folder_ / (name + ".log");
      rows_.push_back(row);
    }
    SweepWork work;
    work.places = gpus;
    work.command = [](const SweepRow& row) {
      return std::vector<std::string>{"--gtest_also_run_disabled_tests",
                                      "--gtest_filter=SweepRun.DISABLED_" + row.run.name};
    };
    work.look_at = [](SweepRow& row) {
      row.seconds = fs::exists(row.path) ? 1 : 0;
      return fs::exists(row.path) && read_bytes(row.path) == row.run.name;
    };
    work.over = [&](const SweepRow& row, bool before) {
      told_[row.run.name] = std::string(name_of(row.state)) + (before ? " before" : "");
    };
    work.elsewhere = [&](const SweepRow& row, bool left) {
      elsewhere_.push_back(row.not_on + (left ? ", left" : ""));
    };
    work.ending = [&] { told_["ending"] = "told"; };
    work.under_way = [&](const std::vector<const SweepRow*>& rows) {
      most_ = std::max(most_, rows.size());
      if (rows.size() == 2) fs::remove(folder_ / "alone");
      if (on_all_begun_ && std::all_of(rows.begin(), rows.end(),
                                       [&](const SweepRow* row) { return fs::exists(row->path + ".gpu"); }))
        std::exchange(on_all_begun_, nullptr)();
    };
    train_sweep(rows_, work);
  }
  std::string gpus_of(const std::string& name) { return read_bytes(folder_ / (name + ".gpu")); }

  TemporaryFolder folder_;
  std::vector<SweepRow> rows_;
  std::map<std::string, std::string> told_;
  std::vector<std::string> elsewhere_;
  size_t most_ = 0;  // runs at the same time
  std::function<void()> on_all_begun_;
};

TEST_F(SweepRunnerTest, TwoAtATimeSeeTwoGpus) {
  write_bytes(folder_ / "alone", "");  // both runs wait for each other
  train({"pair1", "pair2"}, {"0", "1"});
  EXPECT_EQ(most_, 2u);
  EXPECT_EQ(told_, (std::map<std::string, std::string>{{"pair1", "finished"}, {"pair2", "finished"}}));
  EXPECT_THAT((std::vector{gpus_of("pair1"), gpus_of("pair2")}), UnorderedElementsAre("0\n", "1\n"));
}

TEST_F(SweepRunnerTest, OnePlaceIsOneAfterAnotherWithTheGpusOfTheParent) {
  setenv("CUDA_VISIBLE_DEVICES", "5,6", 1);
  train({"short", "pair1"}, {""});
  unsetenv("CUDA_VISIBLE_DEVICES");
  EXPECT_EQ(most_, 1u);
  EXPECT_EQ(gpus_of("short"), "5,6\n");
}

TEST_F(SweepRunnerTest, OneThatFailsIsShownAndTheOthersGoOn) {
  train({"fails", "dies", "short", "pair1", "pair2"}, {"3", "GPU-7"});
  EXPECT_EQ(told_["fails"], "failed");
  EXPECT_EQ(told_["dies"], "failed");
  for (const char* name : {"short", "pair1", "pair2"}) EXPECT_EQ(told_[name], "finished");
  EXPECT_EQ(rows_[0].problem, "the loss is not finite");
  EXPECT_EQ(rows_[1].problem, "ended by signal 9");
  std::set<std::string> gpus;
  for (const SweepRow& row : rows_) gpus.insert(gpus_of(row.run.name));
  EXPECT_THAT(gpus, ElementsAre("3\n", "GPU-7\n"));

  // Once more: what is finished stays, what failed is tried again.
  train({"fails", "dies", "short", "pair1", "pair2"}, {"3", "GPU-7"});
  EXPECT_EQ(told_["short"], "finished before");
  EXPECT_EQ(told_["fails"], "failed");
  EXPECT_EQ(rows_[0].problem, "the loss is not finite");
  EXPECT_EQ(std::ranges::count(gpus_of("fails"), '\n'), 2);
  EXPECT_EQ(std::ranges::count(gpus_of("short"), '\n'), 1);
}

TEST_F(SweepRunnerTest, ABrokenGpuIsLeftAndItsRunsGoElsewhere) {
  const std::vector<std::string> names{"short", "pair1", "pair2", "long1"};
  write_bytes(folder_ / "long1", "begun");  // so that it does not take long
  train(names, {"broken", "slow"});
  for (const std::string& name : names) {
    EXPECT_EQ(told_[name], "finished");
    EXPECT_THAT(gpus_of(name), testing::EndsWith("slow\n"));
  }
  for (const SweepRow& row : rows_) EXPECT_EQ(row.problem, "");
  EXPECT_THAT(elsewhere_, ElementsAre("broken", "broken, left"));

  fs::remove_all(folder_ / "short");
  train({"short", "pair1", "fails"}, {"broken", "broken"});
  EXPECT_EQ(told_["short"], "failed");
  EXPECT_THAT(rows_[0].problem, HasSubstr("illegal memory access"));
  EXPECT_EQ(told_["pair1"], "finished before");
  EXPECT_EQ(told_["fails"], "failed");
}

// The other GPU has nothing to do when the run comes back.
TEST_F(SweepRunnerTest, AGpuThatIsIdleTakesTheLastRunOfABrokenOne) {
  train({"short", "pair1"}, {"0", "broken later"});
  EXPECT_EQ(told_, (std::map<std::string, std::string>{{"pair1", "finished"}, {"short", "finished"}}));
  EXPECT_EQ(gpus_of("pair1"), "broken later\n0\n");
}

TEST_F(SweepRunnerTest, RunsThatBreakEveryGpuLeaveTheGpusToTheOthers) {
  train({"breaks1", "breaks2", "short", "pair1"}, {"0", "1"});
  EXPECT_EQ(told_,
            (std::map<std::string, std::string>{
                {"breaks1", "failed"}, {"breaks2", "failed"}, {"short", "finished"}, {"pair1", "finished"}}));
  EXPECT_THAT(rows_[0].problem, HasSubstr("illegal memory access"));
}

TEST_F(SweepRunnerTest, AnInterruptEndsBothAndTheNextTimeTakesThemUp) {
  {
    const InterruptGuard interrupts;
    on_all_begun_ = [] { ::kill(getpid(), SIGTERM); };
    train({"long1", "long2", "short"}, {"0", "1"});
    EXPECT_EQ(InterruptGuard::signal_number(), SIGTERM);
  }
  EXPECT_EQ(most_, 2u);
  EXPECT_EQ(told_, (std::map<std::string, std::string>{
                       {"ending", "told"}, {"long1", "stopped"}, {"long2", "stopped"}}));
  EXPECT_EQ(rows_[2].state, SweepState::waiting);
  EXPECT_FALSE(fs::exists(folder_ / "short"));

  const InterruptGuard interrupts;
  train({"long1", "long2", "short"}, {"0", "1"});
  EXPECT_EQ(told_, (std::map<std::string, std::string>{
                       {"long1", "finished"}, {"long2", "finished"}, {"short", "finished"}}));
}

}  // namespace
}  // namespace longstride
