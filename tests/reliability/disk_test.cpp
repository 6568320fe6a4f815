// The disk after a loss of power, for journals that are written here by hand.
#include "tests/reliability/disk.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace longstride::reliability {
namespace {

class DiskTest : public testing::Test {
 protected:
  DiskTest() {
    std::filesystem::create_directory(work());
    std::ofstream(work() + "/file") << "old";
  }
  std::string work() const { return folder_.path() + "/work"; }

  void play(Disk& disk, std::initializer_list<Record> records) const {
    for (const Record& record : records) disk.play(record);
  }
  // What a file may hold after many losses of one kind; "-" if it may be missing.
  std::set<std::string> contents(const Disk& disk, Loss loss, const std::string& name) {
    std::set<std::string> found;
    for (int i = 0; i < 200; ++i) {
      disk.restore_after(loss, random_, work());
      std::ifstream file(work() + "/" + name);
      found.insert(file ? std::string(std::istreambuf_iterator<char>(file), {}) : "-");
    }
    return found;
  }

  TemporaryFolder folder_;
  std::mt19937_64 random_{1};
};

const Record kCreate{Deed::open, 1u << 30, O_CREAT, "tmp", ""};
const Record kWrite{Deed::write, 1u << 30, 0, "", "new"};
const Record kSync{Deed::sync, 1u << 30, 0, "tmp", ""};
const Record kRename{Deed::rename, 0, 0, "tmp", "file"};
const Record kSyncFolder{Deed::sync, 0, 1, ".", ""};

TEST_F(DiskTest, ARenameIsSureOnlyWithItsFolder) {
  Disk disk(work());
  play(disk, {kCreate, kWrite, kSync, kRename});
  EXPECT_THAT(contents(disk, Loss::nothing, "file"), testing::ElementsAre("new"));
  EXPECT_THAT(contents(disk, Loss::all, "file"), testing::ElementsAre("old"));
  EXPECT_THAT(contents(disk, Loss::in_order, "file"), testing::ElementsAre("new", "old"));
  EXPECT_THAT(contents(disk, Loss::in_any_order, "file"), testing::ElementsAre("new", "old"));
  disk.play(kSyncFolder);
  for (const Loss loss : {Loss::all, Loss::in_order, Loss::in_any_order}) {
    EXPECT_THAT(contents(disk, loss, "file"), testing::ElementsAre("new"));
    EXPECT_THAT(contents(disk, loss, "tmp"), testing::ElementsAre("-"));
  }
}

TEST_F(DiskTest, ARenameBeforeTheContentIsSyncedMayLeaveAPart) {
  Disk disk(work());
  play(disk, {kCreate, kWrite, kRename, kSyncFolder});
  EXPECT_THAT(contents(disk, Loss::all, "file"), testing::ElementsAre(""));
  EXPECT_THAT(contents(disk, Loss::in_order, "file"), testing::ElementsAre("", "n", "ne", "new"));
}

TEST_F(DiskTest, WritesAreLostEachForItself) {
  Disk disk(work());
  play(disk, {kCreate, kWrite, kSyncFolder, {Deed::write, 1u << 30, 3, "", "er"}});
  const std::set<std::string> seen = contents(disk, Loss::in_order, "tmp");
  EXPECT_TRUE(seen.contains(std::string("\0\0\0er", 5)));
  EXPECT_TRUE(seen.contains("newer"));
  EXPECT_TRUE(seen.contains("new"));
}

TEST_F(DiskTest, NamesInAnyOrderMayLoseTheFirstOfTwo) {
  Disk disk(work());
  play(disk, {{Deed::mkdir, 0, 0, "a", ""}, {Deed::mkdir, 0, 0, "b", ""}});
  std::set<std::string> seen;
  for (const Loss loss : {Loss::in_order, Loss::in_any_order})
    for (int i = 0; i < 100; ++i) {
      disk.restore_after(loss, random_, work());
      const bool only_b = !std::filesystem::exists(work() + "/a") && std::filesystem::exists(work() + "/b");
      if (only_b) seen.insert(loss == Loss::in_order ? "in order" : "in any order");
    }
  EXPECT_THAT(seen, testing::ElementsAre("in any order"));
}

}  // namespace
}  // namespace longstride::reliability
