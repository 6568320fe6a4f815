#include "longstride/sweep/record.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/run/run_directory.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SweepRecordTest : public testing::Test {
 protected:
  std::string complaint(const RunConfig& config, const std::vector<Vary>& lists) {
    try {
      open_sweep(folder_ / "s", config, lists);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  const std::vector<Vary> lists_{{"train.learning_rate", {"0.001", "0.002"}}};
};

TEST_F(SweepRecordTest, TheSameSweepGoesOnAndAnotherDoesNot) {
  RunConfig config;
  EXPECT_EQ(complaint(config, lists_), "");
  EXPECT_EQ(complaint(config, lists_), "");
  RunConfig other = config;
  other.train.steps = 77;
  EXPECT_THAT(complaint(other, lists_), HasSubstr("train.steps = 1000, and now it would be 77"));
  // The lists decide about what varies.
  RunConfig varied = config;
  varied.train.learning_rate = 7;
  EXPECT_EQ(complaint(varied, lists_), "");
  EXPECT_THAT(complaint(config, {{"train.learning_rate", {"0.001"}}}),
              HasSubstr("not over train.learning_rate=0.001;"));
}

TEST_F(SweepRecordTest, OtherFoldersAreLeftAlone) {
  write_bytes(folder_ / "s", "a file");
  EXPECT_THAT(complaint({}, lists_), HasSubstr("not a folder but a file"));
  fs::remove(folder_ / "s");
  fs::create_directories(folder_ / "s");
  write_bytes(folder_ / "s/letter.txt", "dear");
  EXPECT_THAT(complaint({}, lists_), HasSubstr("other files and no sweep"));
  EXPECT_FALSE(fs::exists(folder_ / "s/sweep.json"));
  fs::remove(folder_ / "s/letter.txt");
  write_run_config(folder_ / "s", {});
  EXPECT_THAT(complaint({}, lists_), HasSubstr("is a run and not a sweep"));
}

TEST_F(SweepRecordTest, BrokenRecordsAreNamed) {
  fs::create_directories(folder_ / "s");
  for (const char* text : {"", "{", "[]", "{\"vary\": 3, \"fields\": {}}", "{\"vary\": [], \"fields\": 1}"}) {
    write_bytes(folder_ / "s/sweep.json", text);
    EXPECT_THAT(complaint({}, lists_), HasSubstr("s")) << text;
  }
}

}  // namespace
}  // namespace longstride
