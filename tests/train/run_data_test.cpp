// The data of a run: found from every folder, and known again when the run goes on.
#include "longstride/run/run_data.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/run/run_directory.h"

#include "tests/train/train_fixture.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

class RunDataTest : public TrainerTest {
 protected:
  RunDataTest() { config_.train.steps = 8; }
  std::string refusal() {
    return message_of<Error>([&] { train("a", config_); });
  }
  // Goes on although the data changed.
  TrainSummary accept() {
    RunRequest request{run("a"), config_};
    request.data_changed = true;
    PreparedRun prepared(std::move(request), lock_existing_run(run("a"), {}), {});
    TrainObserver observer;
    observer.show_progress = false;
    return train_run(prepared, check_training_memory(config_), observer);
  }
};

TEST_F(RunDataTest, PathsAreKeptAbsolute) {
  const fs::path before = fs::current_path();
  fs::current_path(directory_.path());
  DataConfig data;
  data.path = "text.txt", data.validation_path = "./sub/", data.cache = "cache";
  make_paths_absolute(data);
  const std::string here = fs::current_path().string();
  fs::current_path(before);
  EXPECT_EQ(data.path, here + "/text.txt");
  EXPECT_EQ(data.validation_path, here + "/sub");
  EXPECT_EQ(data.cache, here + "/cache");
  EXPECT_EQ(data.test_path, "");
}

TEST_F(RunDataTest, ARelativePathOfAnOlderRunIsNamedOnce) {
  train("a", config_);
  const fs::path before = fs::current_path();
  RunConfig older = read_run_config(run("a"));
  older.data.path = "text.txt";
  write_run_config(run("a"), older);
  fs::current_path(directory_.path());
  config_ = older;
  config_.train.steps = 9;
  notes_.clear();
  train("a", config_);
  EXPECT_THAT(notes_, HasSubstr("relative data path text.txt"));
  notes_.clear();
  config_.train.steps = 10;
  train("a", config_);
  fs::current_path(before);
  EXPECT_EQ(notes_.find("relative"), std::string::npos);
}

TEST_F(RunDataTest, ChangedDataAreRefusedBeforeAnythingIsTrained) {
  train("a", config_);
  config_.train.steps = 16;
  const std::string path = config_.data.path, original = read_bytes(path);
  write_bytes(path, original + "and more");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("grown"), HasSubstr("--data-changed")));
  write_bytes(path, original.substr(0, original.size() - 100));
  EXPECT_THAT(refusal(), HasSubstr("shrunk"));
  for (const size_t at : {size_t{5}, original.size() - 5}) {
    std::string other = original;
    other[at] ^= 1;
    write_bytes(path, other);
    EXPECT_THAT(refusal(), HasSubstr("another content")) << at;
  }
  EXPECT_EQ(list_checkpoints(run("a")).back().step, 8);
  EXPECT_EQ(accept().state.step, 16);
  // What was accepted is known from now on.
  config_.train.steps = 17;
  EXPECT_EQ(train("a", config_).state.step, 17);
}

TEST_F(RunDataTest, DataThatMovedAreKnownByTheirContent) {
  train("a", config_);
  fs::rename(config_.data.path, directory_ / "moved.txt");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("text.txt"), HasSubstr("--set data.path=")));
  config_.data.path = directory_ / "moved.txt";
  config_.train.steps = 9;
  EXPECT_EQ(train("a", config_).state.step, 9);
}

TEST_F(RunDataTest, ValidationDataOfTheirOwnAreComparedToo) {
  config_.data.validation_path = directory_ / "validation.txt";
  write_bytes(config_.data.validation_path, babble(1000));
  train("a", config_);
  write_bytes(config_.data.validation_path, std::string(1000, 'x'));
  EXPECT_THAT(refusal(), HasSubstr("validation part"));
}

TEST_F(RunDataTest, ARunInsideItsDataIsNotRead) {
  fs::create_directories(directory_ / "data");
  fs::rename(config_.data.path, directory_ / "data/text.txt");
  config_.data.path = directory_ / "data";
  config_.data.cache = directory_ / "cache";
  train("data/runs/a", config_);
  const int64_t size = open_splits(config_.data).train.corpus->size();
  EXPECT_EQ(size, static_cast<int64_t>(fs::file_size(directory_ / "data/text.txt")));
  config_.train.steps = 9;
  EXPECT_EQ(train("data/runs/a", config_).state.step, 9);
  config_.data.path = run("data/runs/a");
  EXPECT_THAT(message_of<Error>([&] { open_splits(config_.data); }), HasSubstr("a run of longstride"));
}

}  // namespace
}  // namespace longstride
