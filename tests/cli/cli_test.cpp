// The binary as a user runs it: the main job end to end, and one clear line with the right exit code for
// every mistake.
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out, err;
};

class CliTest : public testing::Test {
 protected:
  // Runs `longstride arguments` through the shell in the test's folder.
  Outcome longstride(const std::string& arguments, const std::string& input_from = "/dev/null") {
    const std::string command = "cd " + folder_.path() + " && XDG_CACHE_HOME=" + folder_.path() + "/cache " +
                                LONGSTRIDE_BINARY + " " + arguments + " >out.txt 2>err.txt <" + input_from;
    const int status = std::system(command.c_str());
    Outcome outcome;
    outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    outcome.out = read_bytes(folder_ / "out.txt");
    outcome.err = read_bytes(folder_ / "err.txt");
    return outcome;
  }

  // One line, no stack trace, the expected code.
  void expect_complaint(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_THAT(outcome.err, testing::StartsWith("longstride: "));
    for (const std::string& part : parts) EXPECT_THAT(outcome.err, HasSubstr(part));
  }

  void write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name) << content;
  }

  void write_small_config(const std::string& more = "") {
    std::string text;
    for (int i = 0; i < 600; ++i) text += "line " + std::to_string(i * i % 97) + " of the log\n";
    write("text.txt", text);
    write(
        "small.toml",
        "[model]\ncontext = 64\nlayers = 2\nheads = 2\nwidth = 32\npattern = 'fixed:16,4'\n"
        "[data]\npath = 'text.txt'\n"
        "[train]\nsteps = 30\nbatch = 2\nlearning_rate = 3e-3\nvalidate_every = 10\ncheckpoint_every = 10\n" +
            more);
  }

  TemporaryFolder folder_;
};

TEST_F(CliTest, TheMainJobFromEndToEnd) {
  write_small_config();
  Outcome outcome = longstride("train small.toml --run run --json --quiet");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto trained = nlohmann::json::parse(outcome.out);
  EXPECT_TRUE(trained["complete"]);
  EXPECT_EQ(trained["step"], 30);
  EXPECT_LT(trained["validation_bits"], 6.0);

  outcome = longstride("eval run --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_NEAR(nlohmann::json::parse(outcome.out)["results"][0]["bits_per_byte"].get<double>(),
              trained["best_bits"].get<double>(), 1e-4);
  outcome = longstride("eval run --min-context 16,32 --split test");
  EXPECT_EQ(outcome.code, 0) << outcome.err;

  outcome = longstride("sample run --length 48 --seed 4");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GE(outcome.out.size(), 48u);
  EXPECT_EQ(longstride("sample run --length 48 --seed 4").out, outcome.out);
  write("prime.txt", "line 1");
  outcome = longstride("sample run --length 32 --prime -", "prime.txt");
  EXPECT_THAT(outcome.out, testing::StartsWith("line 1"));

  outcome = longstride("eval run --weights int8");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("int8 weights cost "));
  outcome = longstride("eval run --weights int8 --json --min-context 0,16");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const auto& result : nlohmann::json::parse(outcome.out)["results"])
    EXPECT_LT(std::abs(result["int8_cost"].get<double>()), 0.05);
  outcome = longstride("sample run --length 48 --seed 4 --weights int8");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GE(outcome.out.size(), 48u);

  outcome = longstride("inspect run --json --draw pattern.png");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GT(nlohmann::json::parse(outcome.out)["parameters"], 1000);
  EXPECT_TRUE(fs::exists(folder_ / "pattern.png"));
}

// Kills the trainer for real, again and again, and compares the end with an undisturbed run.
TEST_F(CliTest, KilledAndResumedEqualsUninterrupted) {
  write_small_config("dropout = 0.1\n");
  ASSERT_EQ(longstride("train small.toml --run whole --quiet --set train.steps=400").code, 0);
  int kills = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    const pid_t child = fork();
    if (child == 0) {
      if (chdir(folder_.path().c_str()) != 0) _exit(99);
      execl(LONGSTRIDE_BINARY, "longstride", "train", "small.toml", "--run", "killed", "--resume", "--quiet",
            "--set", "train.steps=400", nullptr);
      _exit(98);
    }
    usleep(60000 + 37000 * (attempt % 7) + 20000 * attempt);
    int status = 0;
    const bool ended = waitpid(child, &status, WNOHANG) == child;
    if (!ended) {
      kill(child, attempt % 2 ? SIGTERM : SIGKILL);
      waitpid(child, &status, 0);
      ++kills;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
        fs::exists(folder_ / "killed/checkpoints/step-00000400"))
      break;
  }
  EXPECT_GT(kills, 0);
  // EXPECT_EQ would print the weights.
  EXPECT_TRUE(read_bytes(folder_ / "whole/checkpoints/step-00000400/model.safetensors") ==
              read_bytes(folder_ / "killed/checkpoints/step-00000400/model.safetensors"));
}

TEST_F(CliTest, InterruptSavesAndEndsCleanly) {
  write_small_config();
  const pid_t child = fork();
  if (child == 0) {
    if (chdir(folder_.path().c_str()) != 0) _exit(99);
    execl(LONGSTRIDE_BINARY, "longstride", "train", "small.toml", "--run", "run", "--quiet", "--set",
          "train.steps=100000", nullptr);
    _exit(98);
  }
  for (int i = 0; i < 600 && !fs::exists(folder_ / "run/checkpoints/step-00000010"); ++i) usleep(100000);
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(fs::exists(folder_ / "run/model.safetensors"));
}

TEST_F(CliTest, HelpAndVersionEverywhere) {
  EXPECT_THAT(longstride("--help").out, HasSubstr("train"));
  EXPECT_THAT(longstride("--version").out, HasSubstr("longstride "));
  for (const char* command : {"train", "eval", "sample", "inspect", "selftest"}) {
    const Outcome outcome = longstride(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out, HasSubstr("Example"));
  }
  EXPECT_THAT(longstride("train --help").out, HasSubstr("train.learning_rate"));
}

TEST_F(CliTest, WrongCommandLines) {
  write_small_config();
  expect_complaint(longstride(""), 2, {"subcommand"});
  expect_complaint(longstride("trian x"), 2, {"trian"});
  expect_complaint(longstride("train"), 2, {"target"});
  expect_complaint(longstride("train small.toml --sett a=b"), 2, {"--sett"});
  expect_complaint(longstride("train small.toml --set model.layer=3"), 2,
                   {"model.layer", "did you mean model.layers?"});
  expect_complaint(longstride("train small.toml --set model.layers=many"), 2, {"model.layers", "integer"});
  expect_complaint(longstride("train small.toml --set model.layers"), 2, {"section.key=value"});
  expect_complaint(longstride("eval run --split tset"), 2, {"tset"});
  expect_complaint(longstride("eval run --weights int9"), 2, {"--weights", "int9", "int8"});
  expect_complaint(longstride("sample run --weights int9"), 2, {"--weights", "int9", "int8"});
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(CliTest, MistakesInConfigAndData) {
  write_small_config();
  const auto train = [&](const std::string& set) {
    return longstride("train small.toml --run run --set " + set);
  };
  expect_complaint(longstride("train nothing.toml"), 1, {"nothing.toml", "no such config"});
  expect_complaint(train("model.heads=5"), 1, {"model.heads = 5", "model.width = 32"});
  expect_complaint(train("model.pattern=summary:128,200"), 1, {"summary:128,200"});
  expect_complaint(train("model.pattern=stride:0"), 1, {"stride:0"});
  expect_complaint(train("model.pattern=windw:4"), 1, {"windw", "window"});
  expect_complaint(train("data.path=missing.txt"), 1, {"missing.txt"});
  expect_complaint(train("model.context=1000000"), 1, {"text.txt"});
  expect_complaint(train("data.kind=image"), 1, {"text.txt"});
  expect_complaint(train("train.micro_batch=3"), 1, {"train.micro_batch = 3", "train.batch = 2"});
  write("empty.txt", "");
  expect_complaint(train("data.path=empty.txt"), 1, {"empty.txt", "empty"});
  write("bad.toml", "[model]\nlayers = \n");
  expect_complaint(longstride("train bad.toml"), 1, {"bad.toml:2"});
  write("typo.toml", "[model]\nlayrs = 2\n");
  expect_complaint(longstride("train typo.toml"), 1,
                   {"typo.toml:2", "model.layrs", "did you mean model.layers?"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));  // no mistake left anything behind

  expect_complaint(longstride("train small.toml --run /proc/nowhere"), 1, {"/proc/nowhere"});
  expect_complaint(longstride("train small.toml --run text.txt"), 1, {"text.txt"});
  expect_complaint(longstride("eval nothing"), 1, {"nothing"});
  expect_complaint(longstride("sample text.txt"), 1, {"text.txt"});
}

TEST_F(CliTest, AnExistingRunStaysUntouched) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet --set train.steps=10").code, 0);
  const std::string before = read_bytes(folder_ / "run/config.toml");
  expect_complaint(longstride("train small.toml --run run"), 1, {"run", "already holds a run"});
  expect_complaint(longstride("train run --set model.layers=3"), 1, {"model.layers", "2", "3"});
  expect_complaint(longstride("train run --set model.pattern=dense"), 1, {"model.pattern"});
  EXPECT_EQ(read_bytes(folder_ / "run/config.toml"), before);

  // Damage: truncation and a flipped bit are found by every reader.
  const std::string model = folder_ / "run/checkpoints/step-00000010/model.safetensors";
  const std::string whole = read_bytes(model);
  fs::remove(model);
  std::ofstream(model, std::ios::binary) << whole.substr(0, whole.size() / 2);
  expect_complaint(longstride("eval run"), 1, {"model.safetensors"});
  std::string flipped = whole;
  flipped[whole.size() / 2] ^= 1;
  std::ofstream(model, std::ios::binary) << flipped;
  expect_complaint(longstride("sample run"), 1, {"model.safetensors"});
}

}  // namespace
}  // namespace longstride
