// Command lines: help, values and options that are refused, and advice that can be copied.
#include <array>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class CommandLineTest : public CliTest {};

// An empty value is most often a variable of the shell that is not set.
TEST_F(CommandLineTest, AnEmptyValueIsNoAnswer) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet --set train.steps=2").code, 0);
  for (const char* command : {"eval run --file ''", "sample run --prime ''", "sample run -o ''",
                              "train small.toml --run ''", "report run -o ''"})
    expect_complaint(longstride(command), 2, {"the value is empty"});
}

TEST_F(CommandLineTest, OneQuestionHasOneAnswer) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet --set train.steps=2").code, 0);
  expect_complaint(longstride("eval run --file text.txt --split test"), 2, {"--split", "--file"});
  expect_complaint(longstride("train /dev/null --run other"), 1, {"put it into a file"});
  expect_complaint(longstride("verify nothing"), 1, {"1 of 1 files is missing"});
  fs::create_directory(folder_ / "folder");
  expect_complaint(longstride("sample run --prime folder"), 1, {"it is a folder"});
  expect_complaint(longstride("eval run --device cpu --device auto"), 2, {"--device"});
  expect_complaint(longstride("eval run --device cpu --set compute.device=cuda"), 2,
                   {"--device cpu and --set compute.device=cuda: one of them"});
  EXPECT_EQ(longstride("eval run --set compute.threads=1 --set compute.threads=2 --device cpu").code, 0);
  expect_complaint(longstride("compress run -"), 2, {"standard input", "put it into a file"});
  expect_complaint(longstride("eval run --file text.txt --data-changed"), 2, {"--data-changed", "--file"});
  expect_complaint(longstride("train small.toml --run other --parallel data=1,sequence=2 "
                              "--set compute.sequence_ranks=1"),
                   2, {"--parallel", "compute.sequence_ranks=1", "one of them"});
}

// Alone they would do nothing, and nobody would know.
TEST_F(CommandLineTest, OptionsOfAnOptionNeedIt) {
  write_small_config();
  for (const auto& [command, option, needed] :
       {std::array{"inspect small.toml --query 2", "--query", "--draw"},
        {"inspect small.toml --price 2", "--price", "--time"},
        {"inspect small.toml --measure", "--measure", "--time"},
        {"inspect small.toml --layer 2", "--layer", "--attention"},
        {"inspect small.toml --data-changed", "--data-changed", "--attention"},
        {"inspect small.toml --room 8Gi", "--room", "--fit"},
        {"inspect small.toml --pixels 99", "--pixels", "--draw"},
        {"report nowhere --every 9", "--every", "--watch"},
        {"sample nowhere --branch 2", "--branch", "--resume"}})
    expect_complaint(longstride(command), 2, {option, needed});
}

TEST_F(CommandLineTest, WrongCommandLines) {
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
  for (const char* device : {"tpu", "cpu:1", "cuda:-1", "cuda:4294967296", "cuda:x"})
    expect_complaint(longstride(std::string("eval run --device ") + device), 2, {"device"});
  expect_complaint(longstride("selftest --device tpu"), 2, {"tpu", "cpu, cuda"});
  expect_complaint(longstride("sample run --top-p 0"), 2, {"--top-p 0", "more than 0"});
  expect_complaint(longstride("eval run --weights int9"), 2, {"--weights", "int9", "int8"});
  expect_complaint(longstride("sample run --weights int9"), 2, {"--weights", "int9", "int8"});
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(CommandLineTest, HelpAndVersionEverywhere) {
  EXPECT_THAT(longstride("--help").out, HasSubstr("train"));
  EXPECT_THAT(longstride("--version").out, HasSubstr("longstride "));
  for (const char* command : {"train", "eval", "sample", "inspect", "selftest"}) {
    const Outcome outcome = longstride(std::string(command) + " --help");
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out, HasSubstr("Example"));
  }
  EXPECT_THAT(longstride("train --help").out, HasSubstr("train.learning_rate"));
}

// Epochs replace steps, so that steps on the command line were passed over where the config counts epochs.
TEST_F(CommandLineTest, StepsOfTheCommandLineCount) {
  write_small_config("epochs = 3.0\n");
  Outcome outcome = longstride("train small.toml --run run --set train.steps=5");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("finished at step 5 "));
  EXPECT_THAT(outcome.err, HasSubstr("--set train.steps=N"));
  outcome = longstride("train run --set train.steps=7");
  EXPECT_THAT(outcome.err, HasSubstr("finished at step 7 "));
  expect_complaint(longstride("train small.toml --run other --set train.steps=5 --set train.epochs=1"), 2,
                   {"train.steps and train.epochs"});
  // The limit that ended the run is the one that is named, though the config has minutes too.
  outcome = longstride("train small.toml --run third --set train.epochs=0.2 --set train.minutes=5");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("--set train.epochs=N"));
}

TEST_F(CommandLineTest, AdviceCanBeCopied) {
  write_small_config();
  Outcome outcome = longstride("train small.toml --run 'my run' --set train.steps=2");
  EXPECT_THAT(outcome.err, HasSubstr("longstride sample 'my run'; longstride eval 'my run'"));
  fs::rename(folder_ / "my run", folder_ / "my\nrun\x80");
  outcome = longstride("train 'my\nrun\x80'");
  EXPECT_THAT(outcome.err, HasSubstr(R"(longstride sample $'my\x0arun\x80'; longstride eval)"));
  write("-dash it.txt", std::string(3000, 'x'));
  outcome = longstride("init './-dash it.txt' --device cpu");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("next: longstride train './-dash it.toml'"));
}

}  // namespace
}  // namespace longstride
