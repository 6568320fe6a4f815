#include "longstride/report/run_view.h"

#include <cmath>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/run/run_directory.h"
#include "longstride/run/run_lock.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using namespace std::string_literals;
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class RunViewTest : public testing::Test {
 protected:
  std::string make_run(const std::string& name, double rate = 1e-3) {
    const std::string run = folder_ / name;
    fs::create_directories(run);
    RunConfig config;
    config.model.context = 64, config.model.layers = 1, config.model.heads = 1, config.model.width = 16;
    config.train.learning_rate = rate;
    config.train.recipe = "paper";
    config.data.path = "text.txt";
    write_run_config(run, config);
    write_bytes(
        run + "/metrics.jsonl",
        "{\"step\":10,\"time\":1e9,\"train/bits\":5}\n{\"step\":10,\"time\":1e9,\"validation/bits\":5.5}\n");
    return run;
  }
  TemporaryFolder folder_;
};

TEST_F(RunViewTest, TellsWhatTheFolderHas) {
  const std::string run = make_run("a");
  const RunView view = view_run(run);
  EXPECT_EQ(view.name, "a");
  EXPECT_EQ(view.progress, RunProgress::begun);
  EXPECT_EQ(view.last_step, 10);
  EXPECT_EQ(view.train_bits, 5);
  EXPECT_EQ(view.best_bits, 5.5);
  EXPECT_GT(view.parameters, 0);
  EXPECT_THAT(view.remarks, IsEmpty());
}

TEST_F(RunViewTest, ARunThatIsTrainedHoldsItsLock) {
  const std::string run = make_run("a");
  {
    const RunLock lock(run);
    EXPECT_EQ(view_run(run).progress, RunProgress::training);
  }
  EXPECT_EQ(view_run(run).progress, RunProgress::begun);
}

TEST_F(RunViewTest, WhatIsBrokenIsARemark) {
  const std::string run = make_run("a");
  write_bytes(run + "/config.toml", "[model\ncontext = ");
  write_bytes(run + "/data.json", "{\"parts\"");
  write_bytes(run + "/commands.jsonl", "{\"time\":1e300,\"folder\":\"/\",\"command\":[\"a b\"]}\n{\"ti");
  write_bytes(run + "/metrics.jsonl", "\0\0\0\n{\"step\":7,\"train/bits\":null}\n{\"st"s);
  const RunView view = view_run(run);
  EXPECT_EQ(view.progress, RunProgress::unreadable);
  EXPECT_EQ(view.last_step, 7);
  EXPECT_GE(view.remarks.size(), 4u);
  const std::string good = make_run("b");
  write_bytes(good + "/best.json", "{}");
  fs::create_directories(good + "/checkpoints/step-00000010");
  for (const char* name : {"model.safetensors", "state.safetensors", "checksums.json"})
    write_bytes(good + "/checkpoints/step-00000010/" + name, "damaged");
  const RunView damaged = view_run(good);
  EXPECT_EQ(damaged.progress, RunProgress::stopped);
  EXPECT_THAT(damaged.remarks, SizeIs(2));
  fs::remove(good + "/metrics.jsonl");
  fs::create_directories(good + "/metrics.jsonl");
  EXPECT_THAT(view_run(good).remarks, SizeIs(3));
}

TEST_F(RunViewTest, FindsRunsAtAnyDepthAndNothingElse) {
  make_run("x/a b"), make_run("x/c"), make_run("x/c/inside"), make_run(".hidden");
  fs::create_directories(folder_ / "configs");
  write_bytes(folder_ / "configs/config.toml", "");  // a config alone is no run
  fs::create_directory_symlink(folder_.path(), folder_ / "x/circle");
  EXPECT_THAT(find_runs(folder_.path()), ElementsAre(folder_ / "x/a b", folder_ / "x/c"));
  EXPECT_THAT(message_of<Error>([&] { find_runs(folder_ / "nowhere"); }), HasSubstr("no such folder"));
  EXPECT_THAT(message_of<Error>([&] { find_runs(folder_ / "configs/config.toml"); }),
              HasSubstr("not a folder but a file"));
}

TEST_F(RunViewTest, DifferencesNameTheFieldsThatDiffer) {
  const auto differences = differences_of({view_run(make_run("a", 1e-3)), view_run(make_run("b", 2e-3))});
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_EQ(differences[0].key, "train.learning_rate");
  EXPECT_THAT(differences[0].values, ElementsAre("0.001", "0.002"));
}

TEST(ShellWord, QuotesWhatAShellWouldRead) {
  EXPECT_EQ(shell_word("runs/a-1=2"), "runs/a-1=2");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("it's $HOME"), "'it'\\''s $HOME'");
}

TEST_F(RunViewTest, CommandsAreKeptInOrderAfterAHalfLineToo) {
  const std::string run = make_run("a");
  write_bytes(run + "/commands.jsonl", "{\"tim");
  record_command(run, {"longstride", "train", "a b.toml"});
  record_command(run, {"longstride", "train", "\xff"});
  const RunView view = view_run(run);
  ASSERT_EQ(view.commands.size(), 2u);
  EXPECT_EQ(view.commands[0].words[2], "a b.toml");
  EXPECT_THAT(view.commands[0].time, HasSubstr("UTC"));
  EXPECT_THAT(view.remarks, ElementsAre(HasSubstr("commands.jsonl")));
}

}  // namespace
}  // namespace longstride
