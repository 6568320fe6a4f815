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

// A file with holes: large, and nearly nothing on the disk.
class LargeDataTest : public RunDataTest {
 protected:
  static constexpr int64_t kWhole = int64_t{1} << 30, kBlock = 256 << 10, kRest = 8192;

  // Records a file whose training part has `bytes`.
  void record(int64_t bytes) {
    config_.data.split = {static_cast<double>(bytes), kRest / 2, kRest / 2};
    fs::remove(config_.data.path);
    write_bytes(config_.data.path, babble(1000));
    fs::resize_file(config_.data.path, static_cast<uintmax_t>(bytes + kRest));
    put(bytes - 4, "last");
    record_run_data(directory_.path(), config_.data, open_splits(config_.data));
    ASSERT_EQ(what_changed(), "");
  }
  void put(int64_t at, const std::string& text) {
    std::fstream file(config_.data.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(at);
    file << text;
    ASSERT_TRUE(file.flush().good());
  }
  // The refusal with one byte changed, which is changed back then.
  std::string with_another_byte(int64_t at) {
    std::ifstream file(config_.data.path, std::ios::binary);
    file.seekg(at);
    const char before = static_cast<char>(file.get());
    put(at, std::string(1, static_cast<char>(before ^ 1)));
    const std::string refusal = what_changed();
    put(at, std::string(1, before));
    return refusal;
  }
  std::string what_changed() {
    try {
      EXPECT_TRUE(check_run_data(directory_.path(), config_.data, open_splits(config_.data)));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(LargeDataTest, EveryByteOfOneGibibyteIsCompared) {
  record(kWhole);
  for (const int64_t at : {int64_t{3}, 3 * kBlock / 2, kWhole / 2 + 12345, kWhole - 1})
    EXPECT_THAT(with_another_byte(at), HasSubstr("another content")) << at;
  EXPECT_EQ(what_changed(), "");
}

TEST_F(LargeDataTest, OfMoreThanOneGibibyteBlocksAreCompared) {
  constexpr int64_t kBlocks = 1024, kBytes = kWhole + (kWhole >> 2) + 77,
                    kApart = (kBytes - kBlock) / (kBlocks - 1);
  record(kBytes);
  for (const int64_t block : {int64_t{0}, int64_t{1}, int64_t{511}, kBlocks - 1})
    for (const int64_t at : {block * kApart, block * kApart + kBlock - 1})
      EXPECT_THAT(with_another_byte(at), HasSubstr("another content")) << at;
  EXPECT_THAT(with_another_byte(kBytes - 1), HasSubstr("another content"));
  // What is documented not to be found: the bytes between two blocks.
  EXPECT_EQ(with_another_byte(kBlock), "");
  EXPECT_EQ(with_another_byte(511 * kApart + kBlock), "");
  EXPECT_EQ(with_another_byte(511 * kApart - 1), "");
  // The other parts are small, and compared whole.
  EXPECT_THAT(with_another_byte(kBytes + 17), HasSubstr("the validation part"));

  // Another size is another source, also where the blocks would stand at the same places.
  fs::resize_file(config_.data.path, static_cast<uintmax_t>(kBytes + kRest - 1));
  EXPECT_THAT(message_of<Error>([&] { open_splits(config_.data); }), HasSubstr("asks for"));
  config_.data.split = {static_cast<double>(kBytes - 1), kRest / 2, kRest / 2};
  EXPECT_THAT(what_changed(), HasSubstr("has shrunk"));
  fs::resize_file(config_.data.path, static_cast<uintmax_t>(kBytes + kRest));
  EXPECT_THAT(what_changed(), HasSubstr("the train part"));
}

TEST_F(RunDataTest, DataThatMovedAreKnownByTheirContent) {
  train("a", config_);
  fs::rename(config_.data.path, directory_ / "moved.txt");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("text.txt"), HasSubstr("--set data.path=")));
  config_.data.path = directory_ / "moved.txt";
  config_.train.steps = 9;
  EXPECT_EQ(train("a", config_).state.step, 9);
}

TEST_F(RunDataTest, ARecordOfManyLevelsIsDamaged) {
  train("a", config_);
  constexpr size_t kLevels = 400'000;
  write_bytes(run("a/data.json"),
              "{\"parts\":" + std::string(kLevels, '[') + std::string(kLevels, ']') + "}");
  EXPECT_THAT(refusal(), HasSubstr("data.json is damaged"));
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
