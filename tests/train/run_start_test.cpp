// How a run begins and how it is gone on with: what is refused changes nothing, what failed blocks nothing.
#include <cerrno>
#include <csignal>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/check.h"
#include "longstride/run/prepared_run.h"
#include "longstride/run/run_directory.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
namespace fs = std::filesystem;

class RunStartTest : public TrainerTest {
 protected:
  RunStartTest() { config_.train.steps = 8; }

  std::string refusal(const std::string& name, const RunConfig& config) {
    return message_of<Error>([&] { train(name, config); });
  }
  // A new run of that name, where there must be none that was trained.
  void begin(const std::string& name, const RunConfig& config) {
    PreparedRun prepared({run(name), config, -1, /*go_on=*/false}, lock_existing_run(run(name), {}), {});
    TrainObserver observer;
    observer.show_progress = false;
    train_run(prepared, check_training_memory(config), observer);
  }
};

TEST_F(RunStartTest, ARefusedResumeLeavesTheConfigurationAlone) {
  train("a", config_);
  const std::string before = read_bytes(run("a") + "/config.toml");
  RunConfig changed = config_;
  changed.train.learning_rate = 9;
  {
    const RunLock lock(run("a"));
    RunLockOptions impatient;
    impatient.patience = 0;
    EXPECT_THAT(message_of<Error>([&] { RunLock second(run("a"), impatient); }),
                HasSubstr("training this run"));
    PreparedRun* prepared = nullptr;
    EXPECT_THROW(prepared = new PreparedRun({run("a"), changed}, RunLock(run("a"), impatient), {}), Error);
    EXPECT_EQ(prepared, nullptr);
  }
  EXPECT_EQ(read_bytes(run("a") + "/config.toml"), before);

  changed.data.path = directory_ / "missing.txt";
  EXPECT_THAT(refusal("a", changed), HasSubstr("missing.txt"));
  EXPECT_EQ(read_bytes(run("a") + "/config.toml"), before);

  changed.data.path = config_.data.path;
  for (const CheckpointInfo& info : list_checkpoints(run("a")))
    write_bytes(info.path + "/state.safetensors", "");
  EXPECT_THAT(refusal("a", changed), HasSubstr("every checkpoint is damaged"));
  EXPECT_EQ(read_bytes(run("a") + "/config.toml"), before);
}

TEST_F(RunStartTest, AStartThatFailedBlocksNothing) {
  // With a configuration, a lock and curves, but no checkpoint.
  fs::create_directories(run("a") + "/checkpoints");
  RunConfig other = config_;
  other.model.width = 16;
  write_run_config(run("a"), other);
  write_bytes(run("a") + "/.lock", "pid 1\nhost nowhere\n");
  write_bytes(run("a") + "/metrics.jsonl", "{\"step\":2,\"time\":1,\"train/bits\":8}\n");
  EXPECT_EQ(state_of_directory(run("a")), RunDirectoryState::begun);
  begin("a", config_);
  EXPECT_EQ(list_checkpoints(run("a")).back().step, 8);
  EXPECT_EQ(read_run_config(run("a")).model.width, 32);
  EXPECT_THAT(message_of<Error>([&] { begin("a", config_); }), HasSubstr("already holds a run"));
}

TEST_F(RunStartTest, AConfigurationThatWasNotFinishedCountsAsNothing) {
  fs::create_directories(run("a"));
  write_bytes(run("a") + "/.tmp-config.toml-123-0", "[model]\ncon");
  begin("a", config_);
  EXPECT_THAT(names_in(run("a")), Not(testing::Contains(testing::StartsWith(".tmp-"))));
  // Nor does what a process left that was killed while it looked whether it may write here.
  fs::create_directories(run("c"));
  write_bytes(run("c") + "/.tmp-file-123-0", "");
  begin("c", config_);
  EXPECT_THAT(names_in(run("c")), Not(testing::Contains(testing::StartsWith(".tmp-"))));
  fs::create_directories(run("b"));
  write_bytes(run("b") + "/letter.txt", "dear");
  EXPECT_THAT(message_of<Error>([&] { begin("b", config_); }), HasSubstr("not an empty directory"));
  EXPECT_THAT(names_in(run("b")), testing::ElementsAre("letter.txt"));
}

TEST_F(RunStartTest, ARefusedBeginningLeavesNoFolder) {
  RunConfig wrong = config_;
  wrong.data.path = directory_ / "missing.txt";
  EXPECT_THROW(train("new/a", wrong), Error);
  EXPECT_FALSE(fs::exists(run("new")));
  { PreparedRun prepared({run("new/a"), config_}, {}, {}); }
  EXPECT_FALSE(fs::exists(run("new")));
}

TEST_F(RunStartTest, WithoutCheckpointsATrainedRunIsLeftAsItIs) {
  train("a", config_);
  fs::remove_all(run("a") + "/checkpoints");
  fs::create_directories(run("a") + "/checkpoints");
  EXPECT_EQ(state_of_directory(run("a")), RunDirectoryState::stripped);
  const auto content = [&] {
    std::string all;
    for (const char* name : {"config.toml", "metrics.jsonl", "model.safetensors", "best.json"})
      all += read_bytes(run("a") + "/" + name);
    return all;
  };
  const std::string before = content();
  EXPECT_THAT(refusal("a", config_), HasSubstr("no checkpoint is left"));
  EXPECT_THAT(message_of<Error>([&] { begin("a", config_); }), HasSubstr("--run"));
  EXPECT_TRUE(content() == before);
  // Copied without weights: the curves tell.
  fs::remove(run("a") + "/model.safetensors");
  fs::remove(run("a") + "/best.json");
  EXPECT_THAT(refusal("a", config_), HasSubstr("no checkpoint is left"));
}

TEST_F(RunStartTest, PicturesGetAxesOfRowsColumnsAndChannels) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4, 4, 3), }";
  header += std::string(117 - header.size(), ' ') + "\n";
  std::string file("\x93NUMPY\1\0\x76\0", 10);
  file += header;
  for (int i = 0; i < 8 * 48; ++i) file += static_cast<char>(i * 7 % 251);
  write_bytes(directory_ / "p.npy", file);
  config_.data.kind = "image";
  config_.data.path = directory_ / "p.npy";
  config_.data.cache = directory_ / "cache";
  config_.data.split = {1};
  config_.model.context = 48;
  config_.train.steps = 2;
  train("a", config_);
  EXPECT_THAT(read_run_config(run("a")).model.position_axes, testing::ElementsAre(4, 4, 3));
  // The same config goes on with it, and a run without such axes keeps what it has.
  config_.train.steps = 3;
  EXPECT_EQ(train("a", config_).state.step, 3);
  RunConfig given = config_;
  given.model.position_axes = {16, 3};
  train("b", given);
  EXPECT_THAT(read_run_config(run("b")).model.position_axes, testing::ElementsAre(16, 3));
  config_.train.pattern_schedule = "block:12 until 0.5";
  EXPECT_TRUE(train("c", config_).complete);
  config_.train.context_schedule = "24 until 0.5";
  try {
    train("d", config_);
    ADD_FAILURE() << "pieces of pictures";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("are learnt whole; leave it empty"));
  }
  // Three axes that the pictures give are more than this head can turn by; nothing is begun.
  config_.train.context_schedule.clear();
  config_.model.positions = "rotary", config_.model.width = 4 * config_.model.heads;
  try {
    train("e", config_);
    ADD_FAILURE() << "three axes, two pairs";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("has 3 axes, but a head of queries has 2 pairs"));
  }
  EXPECT_FALSE(fs::exists(run("e")));
}

TEST_F(RunStartTest, TheLockIsWaitedForAndItsHolderIsNamed) {
  fs::create_directories(run("a"));
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const RunLock lock(run("a"));
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  std::string notes;
  RunLockOptions options;
  options.patience = 0.1;
  options.note = [&](const std::string& line) { notes += line + "\n"; };
  EXPECT_THAT(message_of<Error>([&] { RunLock lock(run("a"), options); }),
              HasSubstr(fmt::format("process {} is training this run", child)));
  EXPECT_THAT(notes, HasSubstr(fmt::format("waiting for process {}", child)));

  const pid_t killer = fork();
  if (killer == 0) {
    usleep(300'000);
    kill(child, SIGKILL);
    _exit(0);
  }
  options.patience = 20;
  const RunLock lock(run("a"), options);
  EXPECT_THAT(read_bytes(run("a") + "/.lock"), HasSubstr(fmt::format("pid {}\n", getpid())));
  int status = 0;
  waitpid(child, &status, 0);
  waitpid(killer, &status, 0);
  close(ready[0]), close(ready[1]);
}

TEST_F(RunStartTest, FileSystemsWithoutLocksAreNotedAndUsed) {
  fs::create_directories(run("a"));
  for (const int error : {ENOSYS, ENOLCK, EOPNOTSUPP}) {
    std::string notes;
    RunLockOptions options;
    options.note = [&](const std::string& line) { notes += line; };
    int calls = 0;
    options.try_lock = [&](int) {
      errno = ++calls == 1 ? EINTR : error;
      return -1;
    };
    const RunLock lock(run("a"), options);
    EXPECT_EQ(calls, 2);
    EXPECT_THAT(notes, HasSubstr("has no locks"));
  }
}

TEST_F(RunStartTest, ALockThatIsALinkIsNotFollowed) {
  fs::create_directories(run("a"));
  fs::create_symlink(directory_ / "elsewhere", run("a") + "/.lock");
  EXPECT_THROW(RunLock lock(run("a")), Error);
  EXPECT_FALSE(fs::exists(directory_ / "elsewhere"));
}

}  // namespace
}  // namespace longstride
