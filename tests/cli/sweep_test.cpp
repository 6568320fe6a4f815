// `longstride sweep`.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "longstride/run/run_lock.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class SweepTest : public CliTest {
 protected:
  void SetUp() override { write_small_config(); }
  std::string lines_of(const std::string& name) { return read_bytes(folder_ / name); }
};

TEST_F(SweepTest, EachCombinationIsARunAndOneFailureEndsNoOther) {
  // A width that four heads do not divide; the others are trained all the same.
  const std::string command =
      "sweep small.toml --vary train.learning_rate=1e-3,3e-3 --vary model.width=31,32";
  const Outcome first = longstride(command);
  EXPECT_EQ(first.code, 1) << first.err;
  EXPECT_THAT(first.err, HasSubstr("sweep      4 runs in runs/small\n"));
  EXPECT_THAT(first.err, HasSubstr("1/4  learning_rate=0.001,width=31  failed: "));
  EXPECT_THAT(first.err, HasSubstr("2/4  learning_rate=0.001,width=32  finished, best "));
  EXPECT_THAT(first.err, HasSubstr("longstride: 2 of 4 runs failed"));
  // The best first, failures last.
  EXPECT_LT(first.out.find("learning_rate=0.003,width=32  finished"), first.out.find("width=31"));
  EXPECT_LT(first.out.find("learning_rate=0.003,width=32"), first.out.find("learning_rate=0.001,width=32"));
  EXPECT_THAT(lines_of("runs/small/report.html"), HasSubstr("learning_rate=0.001,width=32"));

  // Finished runs are left as they are.
  const auto trained = fs::last_write_time(folder_ / "runs/small/learning_rate=0.001,width=32/metrics.jsonl");
  const Outcome again = longstride(command + " --json");
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("from before"));
  EXPECT_EQ(fs::last_write_time(folder_ / "runs/small/learning_rate=0.001,width=32/metrics.jsonl"), trained);
  const auto json = nlohmann::json::parse(again.out);
  ASSERT_EQ(json.size(), 4u);
  EXPECT_EQ(json[0]["state"], "finished");
  EXPECT_GT(json[0]["best_bits"].get<double>(), 0);
  EXPECT_EQ(json[3]["state"], "failed");
  EXPECT_TRUE(json[3]["best_bits"].is_null());
  EXPECT_THAT(json[3]["problem"].get<std::string>(), HasSubstr("31"));

  // Another sweep does not go on in its place.
  expect_complaint(longstride("sweep small.toml --vary train.learning_rate=1e-3"), 1,
                   {"runs/small is a sweep over"});
  expect_complaint(longstride(command + " --set train.steps=31"), 1, {"train.steps = 30", "31", "--folder"});
}

TEST_F(SweepTest, NothingStartsWithAWrongCommandLine) {
  expect_complaint(longstride("sweep small.toml"), 2, {"--vary"});
  expect_complaint(longstride("sweep small.toml --vary train.stepz=1,2"), 2, {"train.steps"});
  expect_complaint(longstride("sweep small.toml --vary =3"), 2, {"section.key=value"});
  expect_complaint(longstride("sweep small.toml --vary train.steps="), 2, {"empty"});
  expect_complaint(longstride("sweep small.toml --vary train.steps=5,5"), 2, {"twice"});
  expect_complaint(longstride("sweep small.toml --vary train.steps=5 --vary train.steps=6"), 2,
                   {"two lists"});
  expect_complaint(longstride("sweep small.toml --vary train.steps=5 --set train.steps=6"), 2,
                   {"one of them"});
  expect_complaint(longstride("sweep nowhere.toml --vary train.steps=5"), 1, {"nowhere.toml"});
  expect_complaint(longstride("sweep . --vary train.steps=5"), 2, {"config file"});
  expect_complaint(longstride("sweep small.toml --device cpu --gpus 2 --vary train.steps=5"), 2, {"--gpus"});
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
  ASSERT_EQ(longstride("train small.toml --quiet --set train.steps=2").code, 0);
  expect_complaint(longstride("sweep small.toml --vary train.steps=5"), 1,
                   {"runs/small is a run and not a sweep"});
}

TEST_F(SweepTest, OneProcessAtATimeIsTrainingASweep) {
  const std::string command = "sweep small.toml --folder s --set train.steps=2 --vary train.seed=1,2";
  ASSERT_EQ(longstride(command).code, 0);
  const RunLock lock(folder_ / "s");
  const Outcome outcome = longstride(command);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("is training this sweep; "));
  EXPECT_THAT(outcome.err, HasSubstr("--folder"));
}

TEST_F(SweepTest, NamesWithSpaces) {
  fs::copy_file(folder_ / "text.txt", folder_ / "my text.txt");
  const Outcome outcome = longstride(
      "sweep small.toml --folder 'my sweep' --vary 'data.path=text.txt,my text.txt' --set train.steps=4");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("path=my-text.txt  finished"));
  EXPECT_TRUE(fs::exists(folder_ / "my sweep/path=my-text.txt/config.toml"));
}

// An interrupted sweep saves, says how to go on, and goes on where it was.
TEST_F(SweepTest, AnInterruptedSweepGoesOn) {
  const std::string arguments = "small.toml --vary train.learning_rate=1e-3,3e-3 --set train.steps=1500";
  // The shell's own SIGINT would be ignored in the background, SIGTERM is not.
  const std::string command = "cd " + folder_.path() + " && { " + LONGSTRIDE_BINARY + " sweep " + arguments +
                              " >out.txt 2>err.txt & echo $! >pid; wait $!; echo $? >code; }";
  std::thread sweep([&] { EXPECT_EQ(std::system(command.c_str()), 0); });
  const fs::path begun = fs::path(folder_ / "runs/small/learning_rate=0.001/checkpoints");
  for (int i = 0; i < 6000 && !(fs::exists(begun) && !fs::is_empty(begun)); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_EQ(kill(std::stoi(lines_of("pid")), SIGTERM), 0);
  sweep.join();
  EXPECT_EQ(lines_of("code"), "143\n");
  EXPECT_THAT(lines_of("err.txt"), HasSubstr("learning_rate=0.001  stopped"));
  EXPECT_THAT(lines_of("err.txt"), HasSubstr("sweep " + arguments + "\n"));
  EXPECT_THAT(lines_of("out.txt"), HasSubstr("learning_rate=0.003  not begun"));

  const Outcome rest = longstride("sweep " + arguments);
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(lines_of("runs/small/logs/learning_rate=0.001.txt"), HasSubstr("resuming from step"));
  EXPECT_THAT(rest.out, Not(HasSubstr("not begun")));
}

}  // namespace
}  // namespace longstride
