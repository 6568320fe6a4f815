// Files that may not grow and folders that are not writable: one line says so, and existing files stay.
#include <filesystem>
#include <map>
#include <sstream>
#include <string>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "tests/cli/cli_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
namespace fs = std::filesystem;

class LimitsTest : public CliTest {
 protected:
  static constexpr const char* kOneThread = "OMP_NUM_THREADS=1";

  void SetUp() override {
    environment_ = kOneThread;
    write_small_config();
    ASSERT_EQ(longstride("train small.toml --quiet --run run --set train.steps=10").code, 0);
  }

  // Like longstride(), but started by a shell command that ends in exec.
  Outcome behind(const std::string& command, const std::string& arguments) {
    environment_ = std::string(kOneThread) + " sh -c '" + command + " \"$0\" \"$@\"'";
    const Outcome outcome = longstride(arguments);
    environment_ = kOneThread;
    return outcome;
  }

  // No file may grow beyond this many times 512 bytes, the unit of a POSIX shell.
  Outcome limited(int64_t blocks, const std::string& arguments) {
    return behind("ulimit -f " + std::to_string(blocks) + "; exec", arguments);
  }

  // Permissions hold even for root.
  Outcome bound(const std::string& arguments) {
    return behind(geteuid() == 0 ? "exec setpriv --bounding-set=-dac_override,-dac_read_search" : "exec",
                  arguments);
  }

  // The files of a run that are worth keeping: all but those that each start writes again.
  std::map<std::string, std::string> worth(const std::string& run) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / run)) {
      const std::string name = entry.path().lexically_relative(folder_ / run).string();
      if (entry.is_regular_file() && !name.starts_with("events.") && name != ".lock" &&
          name != "config.toml" && name != "metrics.jsonl" && name != "commands.jsonl")
        files[name] = read_bytes(entry.path().string());
    }
    return files;
  }

  // A write that was stopped by a limit leaves no temporary.
  void expect_no_temporaries() {
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path()))
      EXPECT_THAT(entry.path().filename().string(), testing::Not(StartsWith(".tmp-"))) << entry.path();
  }
};

// ---- the size of files ----

TEST_F(LimitsTest, ACheckpointThatGrowsTooLargeLeavesTheOlderOnes) {
  const auto before = worth("run");
  ASSERT_TRUE(before.contains("checkpoints/step-00000010/state.safetensors"));
  fs::copy(folder_ / "run", folder_ / "free", fs::copy_options::recursive);
  ASSERT_EQ(longstride("train free --quiet --set train.steps=20").code, 0);
  // Too small for the weights, and too small only for the state.
  for (const auto& [blocks, file] : {std::pair{100, "model.safetensors"}, {500, "state.safetensors"}}) {
    const Outcome outcome = limited(blocks, "train run --quiet --set train.steps=20");
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_THAT(outcome.err,
                HasSubstr(std::string("checkpoints/step-00000020/") + file + ": File too large"));
    EXPECT_THAT(outcome.err, HasSubstr("raise the file size limit (ulimit -f)"));
    EXPECT_TRUE(worth("run") == before) << file;
    expect_no_temporaries();
  }
  EXPECT_EQ(longstride("train run --quiet --set train.steps=20").code, 0);
  EXPECT_TRUE(worth("run").at("model.safetensors") == worth("free").at("model.safetensors"));
}

TEST_F(LimitsTest, TheFirstWritesOfARunAreToldToo) {
  const Outcome outcome = limited(1, "train small.toml --quiet --run new");
  expect_complaint(outcome, 1, {"new/config.toml: File too large", "ulimit -f"});
  expect_no_temporaries();
  EXPECT_EQ(longstride("train small.toml --quiet --run new --set train.steps=1").code, 0);
}

TEST_F(LimitsTest, MetricsThatCannotBeWrittenLoseNoSteps) {
  constexpr int64_t kBlocks = 4000;  // more than a checkpoint has
  std::string lines;
  const std::string line = "{\"step\":1,\"train/bits\":8.0}\n";
  while (lines.size() + line.size() <= kBlocks * 512) lines += line;
  write("run/metrics.jsonl", lines);
  const Outcome outcome = limited(
      kBlocks, "train run --quiet --set train.steps=20 --set train.log_every=7 --set train.validate_every=7");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("step 14 is saved in run"));
  EXPECT_THAT(outcome.err, HasSubstr("cannot write run/metrics.jsonl: File too large; raise"));
  EXPECT_TRUE(fs::exists(folder_ / "run/checkpoints/step-00000014/checksums.json"));
  EXPECT_EQ(longstride("train run --quiet").code, 0);
  // The half line is gone again.
  std::istringstream metrics(read_bytes(folder_ / "run/metrics.jsonl"));
  for (std::string one; std::getline(metrics, one);) EXPECT_TRUE(nlohmann::json::accept(one)) << one;
}

TEST_F(LimitsTest, OutputsThatGrowTooLargeLeaveWhatWasThere) {
  ASSERT_EQ(longstride("compress run text.txt -o whole.lsc").code, 0);
  const auto expect_kept = [&](const std::string& command, const std::string& name) {
    for (const bool there : {true, false}) {
      fs::remove(folder_ / name);
      if (there) write(name, "what was there");
      const Outcome outcome = limited(1, command);
      EXPECT_EQ(outcome.code, 1) << command << '\n' << outcome.err;
      EXPECT_THAT(outcome.err, HasSubstr(name + ": File too large; raise the file size limit (ulimit -f)"));
      EXPECT_EQ(fs::exists(folder_ / name), there) << command;
      if (there) {
        EXPECT_EQ(read_bytes(folder_ / name), "what was there") << command;
      }
      expect_no_temporaries();
    }
  };
  expect_kept("sample run --length 800 -o text", "text");
  expect_kept("compress run text.txt --force -o c.lsc", "c.lsc");
  expect_kept("decompress run whole.lsc --force -o again", "again");
  expect_kept("inspect run --draw p.svg", "p.svg");
}

TEST_F(LimitsTest, AStateThatGrowsTooLargeLeavesTheOneBefore) {
  ASSERT_EQ(longstride("sample run --length 2000 --state s").code, 0);
  const std::string before = read_bytes(folder_ / "s");
  const Outcome outcome = limited(2, "sample run --length 2000 --seed 2 --force --state s");
  EXPECT_NE(outcome.code, 0);
  EXPECT_TRUE(read_bytes(folder_ / "s") == before);
  expect_no_temporaries();
}

TEST_F(LimitsTest, StandardOutputThatGrowsTooLargeIsAnError) {
  const Outcome outcome = limited(1, "inspect run --json");
  expect_complaint(outcome, 1, {"standard output: File too large"});
}

// ---- folders that are not writable ----

TEST_F(LimitsTest, ARunBelowAFileIsRefusedInOneLine) {
  write("file", "content");
  expect_complaint(longstride("train small.toml --run file/run"), 1, {"file/run", "Not a directory"});
  expect_complaint(longstride("train small.toml --run file"), 1, {"file", "not an empty directory"});
  expect_complaint(longstride("train file/run"), 1, {"file/run"});
  EXPECT_EQ(read_bytes(folder_ / "file"), "content");
}

TEST_F(LimitsTest, AFolderThatMayNotBeWrittenToIsRefusedBeforeTraining) {
  fs::create_directory(folder_ / "closed");
  const auto with_mode = [&](const std::string& name, unsigned mode, const auto& action) {
    const fs::perms before = fs::status(folder_ / name).permissions();
    fs::permissions(folder_ / name, static_cast<fs::perms>(mode));
    action();
    fs::permissions(folder_ / name, before);
  };
  bool binds = false;
  with_mode("closed", 0555, [&] {
    binds = bound("inspect run --draw closed/p.svg").code == 1;
    if (!binds) return;
    expect_complaint(bound("train small.toml --quiet --run closed/run"), 1,
                     {"closed/run", "Permission denied", "a folder that you may write to"});
    expect_complaint(bound("train small.toml --quiet --run closed"), 1, {"closed/", "Permission denied"});
  });
  if (!binds) GTEST_SKIP() << "permissions do not bind this user";

  const auto before = worth("run");
  const std::string config = read_bytes(folder_ / "run/config.toml");
  const auto refused = [&](const std::string& name) {
    expect_complaint(bound("train run --quiet --set train.steps=20"), 1, {name, "Permission denied"});
    EXPECT_TRUE(worth("run") == before) << name;
    EXPECT_EQ(read_bytes(folder_ / "run/config.toml"), config) << name;
  };
  with_mode("run", 0555, [&] {
    refused("run/");
    EXPECT_EQ(bound("eval run").code, 0);
    EXPECT_EQ(bound("sample run --length 9").code, 0);
  });
  with_mode("run/checkpoints", 0555, [&] { refused("run/checkpoints/"); });
  with_mode("run/metrics.jsonl", 0444, [&] { refused("run/metrics.jsonl"); });
  EXPECT_EQ(longstride("train run --quiet --set train.steps=20").code, 0);
}

}  // namespace
}  // namespace longstride
