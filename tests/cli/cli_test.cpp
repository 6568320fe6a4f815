// The binary as a user runs it: the main task from end to end, and for every mistake one clear line with the
// right exit code.
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/device/instructions.h"

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

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
  const nlohmann::json measured = nlohmann::json::parse(outcome.out);
  for (const auto& result : measured["results"]) EXPECT_LT(std::abs(result["int8_cost"].get<double>()), 0.05);
  outcome = longstride("sample run --length 48 --seed 4 --weights int8");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GE(outcome.out.size(), 48u);

  outcome = longstride("inspect run --json --draw pattern.png");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_GT(nlohmann::json::parse(outcome.out)["parameters"], 1000);
  EXPECT_TRUE(fs::exists(folder_ / "pattern.png"));
}

// Really kills the trainer, again and again, and compares the end with an undisturbed run.
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

TEST_F(CliTest, ARunInStages) {
  write_small_config();
  const std::string stages =
      "--set train.decay=linear --set \"train.context_schedule=8 until 0.5\" --set "
      "\"train.pattern_schedule=block:4 until 0.2\"";
  Outcome outcome = longstride("train small.toml --run run " + stages);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err + outcome.out,
              AllOf(HasSubstr("step 1: context 8, pattern block:4"), HasSubstr("step 7: context 8, pattern "),
                    HasSubstr("step 16: context ")));
  EXPECT_EQ(longstride("eval run").code, 0);
  outcome = longstride("train small.toml --run other --set \"train.context_schedule=7 until 0.5\"");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err,
              HasSubstr("train.context_schedule: a context of 7 does not divide model.context = "));
  EXPECT_FALSE(fs::exists(folder_ / "other"));
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
  // That of one checkpoint may be gone again before it is looked at.
  for (int i = 0; i < 600 && !fs::exists(folder_ / "run/model.safetensors"); ++i) usleep(100000);
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGINT);  // not finished: `train && next` must not go on
  EXPECT_TRUE(fs::exists(folder_ / "run/model.safetensors"));
}

TEST_F(CliTest, WhatWasNotMeasuredIsNullInJson) {
  write_small_config();
  const Outcome outcome =
      longstride("train small.toml --run run --json --quiet --set train.steps=2 --set data.split=[1.0]");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto trained = nlohmann::json::parse(outcome.out);
  EXPECT_TRUE(trained["complete"]);
  for (const char* name : {"best_bits", "best_step", "validation_bits"})
    EXPECT_TRUE(trained.contains(name) && trained[name].is_null()) << name;
  EXPECT_TRUE(trained["train_bits"].is_number());
}

TEST_F(CliTest, ValuesThatAreNoFiniteNumbersOrTooLargeAreRefused) {
  write_small_config();
  for (const char* set :
       {"train.epochs=inf", "train.epochs=nan", "train.epochs=1e18", "train.minutes=inf", "train.clip=inf",
        "train.epsilon=inf", "train.learning_rate=nan", "train.dropout=nan"})
    EXPECT_NE(longstride(std::string("train small.toml --run run --set ") + set).code, 0) << set;
  EXPECT_FALSE(fs::exists(folder_ / "run/checkpoints"));
}

TEST_F(CliTest, ARunIsFoundAgainFromAnotherFolderWithItsOwnData) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet").code, 0);
  fs::create_directories(folder_ / "other");
  write("other/text.txt", std::string(20000, 'x'));
  const Outcome here = longstride("eval run --json");
  const std::string command =
      "cd " + (folder_ / "other") + " && " + LONGSTRIDE_BINARY + " eval ../run --json >out.txt";
  ASSERT_EQ(std::system(command.c_str()), 0);
  const auto bits = [](const std::string& out) {
    return nlohmann::json::parse(out)["results"][0]["bits_per_byte"].get<double>();
  };
  EXPECT_EQ(bits(here.out), bits(read_bytes(folder_ / "other/out.txt")));
}

TEST_F(CliTest, ChangedDataAreScoredOnlyOnDemand) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet").code, 0);
  std::string text = read_bytes(folder_ / "text.txt");
  text[text.size() * 93 / 100] ^= 1;  // in the validation part
  write("text.txt", text);
  expect_complaint(longstride("eval run"), 1, {"validation part", "--data-changed"});
  expect_complaint(longstride("sample run --prime validation:0"), 1, {"validation part"});
  EXPECT_EQ(longstride("eval run --data-changed").code, 0);
  expect_complaint(longstride("inspect run --attention heads.png"), 1, {"--data-changed"});
  EXPECT_EQ(longstride("inspect run --attention heads.png --data-changed").code, 0);
  EXPECT_EQ(longstride("eval run --split test").code, 0);
  // A run goes on with them on demand, and then has them.
  expect_complaint(longstride("train run --set train.steps=31"), 1, {"--data-changed"});
  EXPECT_EQ(longstride("train run --quiet --data-changed --set train.steps=31").code, 0);
  EXPECT_EQ(longstride("eval run").code, 0);
}

TEST_F(CliTest, ArchivesAndStatesKeepTheirModel) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet").code, 0);
  write("letter.txt", "line 1 of the log\n");
  ASSERT_EQ(longstride("compress run letter.txt").code, 0);
  ASSERT_EQ(longstride("sample run --length 40 --state s.state -o s.txt").code, 0);
  const int64_t step = nlohmann::json::parse(longstride("eval run --json").out)["step"];
  ASSERT_EQ(longstride("train run --quiet --set train.steps=90 --set train.learning_rate=1e-2").code, 0);
  fs::remove_all(folder_ / fmt::format("run/checkpoints/step-{:08}", step));
  Outcome outcome = longstride("decompress run letter.txt.lsc -o back.txt");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(read_bytes(folder_ / "back.txt"), "line 1 of the log\n");
  outcome = longstride("sample run --resume s.state --branch 1 -o branch.txt --length 60");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST_F(CliTest, AFinishedRunSaysWhatCanBeDoneNext) {
  write_small_config();
  const Outcome first = longstride("train small.toml"), again = longstride("train runs/small");
  for (const Outcome& outcome : {first, again}) {
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    for (const char* part : {"finished at step 30", "longstride sample runs/small",
                             "longstride eval runs/small", "longstride train runs/small --set train.steps=N"})
      EXPECT_THAT(outcome.err, HasSubstr(part));
  }
  expect_complaint(longstride("train small.toml"), 1,
                   {"already holds a run", "named after its config", "--run"});
}

TEST_F(CliTest, AConfigMayLieBesideCheckpointsOfSomethingElse) {
  write_small_config();
  fs::create_directory(folder_ / "checkpoints");
  fs::rename(folder_ / "small.toml", folder_ / "config.toml");
  const Outcome outcome = longstride("train config.toml --quiet --set train.steps=2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  expect_complaint(longstride("train runs/config/config.toml"), 2, {"belongs to a run"});
}

TEST_F(CliTest, ALimitThatARunIsBeyondIsRefused) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet").code, 0);
  const std::string before = read_bytes(folder_ / "run/config.toml");
  expect_complaint(longstride("train run --quiet --set train.steps=10"), 1,
                   {"train.steps = 10", "it is at step 30", "--step"});
  expect_complaint(longstride("train run --quiet --set train.epochs=0.01"), 1,
                   {"train.epochs = 0.01", "step 30"});
  expect_complaint(longstride("train run --quiet --set train.minutes=1e-9"), 1, {"train.minutes", "already"});
  EXPECT_EQ(read_bytes(folder_ / "run/config.toml"), before);
  const Outcome earlier = longstride("train run --step 20 --set train.steps=22");
  EXPECT_EQ(earlier.code, 0) << earlier.err;
  EXPECT_THAT(earlier.err, HasSubstr("finished at step 22 "));
}

TEST_F(CliTest, WithoutCheckpointsThePublishedModelIsUsed) {
  write_small_config();
  ASSERT_EQ(longstride("train small.toml --run run --quiet").code, 0);
  const auto before = nlohmann::json::parse(longstride("eval run --json").out);
  fs::remove_all(folder_ / "run/checkpoints");
  const Outcome outcome = longstride("eval run --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto after = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(after["step"], before["step"]);
  EXPECT_EQ(after["results"][0]["bits_per_byte"], before["results"][0]["bits_per_byte"]);
  EXPECT_EQ(after["results"][0]["bits"], after["results"][0]["bits_per_byte"]);
  expect_complaint(longstride("train run"), 1, {"no checkpoint is left", "--run"});
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

  // Truncation and a flipped bit are found by every reader.
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

// ---- instruction sets ----

#if defined(__x86_64__)
TEST_F(CliTest, SelftestPassesOnEverySetOfTheCpuAndNamesIt) {
  struct Expected {
    Instructions limit;
    const char *vectors, *attention_bf16, *linear_f32, *linear_bf16;  // beginnings
  };
  const Expected kExpected[] = {
      {Instructions::generic, "", "widened to f32", "", "widened to f32"},
      {Instructions::sse4, "SSE4 ", "widened to f32, SSE4", "at most SSE4.1 ", "widened to f32"},
      {Instructions::avx2, "AVX2 ", "widened to f32, AVX2", "at most AVX2 ", "widened to f32"},
      {Instructions::avx512, "AVX3 ", "widened to f32, AVX3", "at most AVX-512 ", "widened to f32"},
      {Instructions::avx512_bf16, "AVX3 ", "AVX512-BF16", "at most AVX-512 BF16 ", "at most AVX-512 BF16 "},
      {Instructions::amx, "AVX3 ", "AMX", "at most AVX-512 AMX ", "at most AVX-512 AMX "}};
  for (const Expected& expected : kExpected) {
    const std::vector<Instructions>& sets = instructions_of_cpu();
    if (std::find(sets.begin(), sets.end(), expected.limit) == sets.end()) continue;
    SCOPED_TRACE(name_of(expected.limit));
    environment_ = "LONGSTRIDE_INSTRUCTIONS=" + name_of(expected.limit);
    const Outcome outcome = longstride("selftest --json");
    ASSERT_EQ(outcome.code, 0) << outcome.err << outcome.out;
    const auto result = nlohmann::json::parse(outcome.out);
    EXPECT_TRUE(result["passed"]);
    EXPECT_EQ(result["bf16_in_hardware"], expected.limit >= Instructions::avx512_bf16);
    const auto expect_part = [&](const char* part, const char* beginning) {
      EXPECT_THAT(result["instructions"].value(part, "nothing"), testing::StartsWith(beginning)) << part;
    };
    EXPECT_EQ(result["instructions"]["limit"], name_of(expected.limit));
    expect_part("vector ops", expected.vectors);
    expect_part("attention f32", expected.vectors);
    expect_part("attention bf16", expected.attention_bf16);
    expect_part("linear f32", expected.linear_f32);
    expect_part("linear bf16", expected.linear_bf16);
    expect_part("decode", expected.vectors);
  }
}

TEST_F(CliTest, SelftestListsWhatEachPartUses) {
  const Outcome outcome = longstride("selftest --instructions generic");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\ninstructions   generic\n"));
  for (const char* part :
       {"processor", "vector ops", "attention f32", "attention bf16", "linear f32", "linear bf16", "decode"})
    EXPECT_THAT(outcome.out, HasSubstr(std::string("\n") + part + " ")) << part;
  EXPECT_THAT(outcome.out, HasSubstr("attention bf16 widened to f32, "));
}

TEST_F(CliTest, MistakesInInstructions) {
  write_small_config();
  // No x86 CPU has it.
  const std::string complaint = "\"neon\": this CPU has up to ";
  expect_complaint(longstride("train small.toml --run run --set compute.instructions=neon"), 1,
                   {"compute.instructions = " + complaint, "; choose auto, generic", " or "});
  expect_complaint(longstride("selftest --instructions neon"), 1, {"--instructions = " + complaint});
  expect_complaint(longstride("train small.toml --run run --set compute.instructions=avx3"), 2,
                   {"compute.instructions", "avx3", "avx512-bf16"});
  expect_complaint(longstride("selftest --instructions avx3"), 2, {"--instructions", "avx3"});
  environment_ = "LONGSTRIDE_INSTRUCTIONS=neon";
  expect_complaint(longstride("train small.toml --run run"), 1, {"LONGSTRIDE_INSTRUCTIONS = " + complaint});
  environment_ = "LONGSTRIDE_INSTRUCTIONS=avx3";
  expect_complaint(longstride("selftest"), 2, {"LONGSTRIDE_INSTRUCTIONS = \"avx3\"", "avx512-bf16"});
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

// The config wins over the environment, a run goes on under another set, and each command says once that it
// will be slow.
TEST_F(CliTest, ARunUnderALimit) {
  write_small_config("[compute]\ndevice = 'cpu'\ninstructions = 'generic'\n");
  const std::string note = "note: no AVX2 here, the CPU backend runs its generic path and is slow\n";
  const auto expect_one_note = [&](const Outcome& outcome) {
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(note));
    EXPECT_EQ(outcome.err.find(note), outcome.err.rfind(note));
    EXPECT_THAT(outcome.out, Not(HasSubstr("note:")));
  };
  environment_ = "LONGSTRIDE_INSTRUCTIONS=neon";  // has no effect
  const Outcome trained = longstride("train small.toml --run run --set train.steps=10");
  expect_one_note(trained);
  EXPECT_THAT(trained.err, AllOf(HasSubstr(", limited to generic, "), HasSubstr("f32 products")));
  expect_one_note(longstride("eval run"));
  expect_one_note(longstride("sample run --length 16"));

  const Outcome fails = longstride("eval run --set compute.instructions=auto");
  expect_complaint(fails, 1, {"LONGSTRIDE_INSTRUCTIONS"});
  const std::string best = name_of(instructions_of_cpu().back());
  environment_ = "LONGSTRIDE_INSTRUCTIONS=" + best;
  const Outcome resumed =
      longstride("train run --set compute.instructions=auto --set train.steps=20 --set train.dropout=0");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr(", limited to " + best + ", "));
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/step-00000020"));
  EXPECT_EQ(resumed.err.find("note:") == std::string::npos, may_use(Instructions::avx2)) << resumed.err;
}
#endif

}  // namespace
}  // namespace longstride
