// Files that change while they are read.
#include "longstride/base/input_file.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class InputFileTest : public ::testing::Test {
 protected:
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string read(const InputFile& file, int64_t offset, size_t count) {
    std::string text(count, ' ');
    file.read(offset, {reinterpret_cast<uint8_t*>(text.data()), count});
    return text;
  }
  // The InputError of a read, or "".
  std::string error(const InputFile& file, int64_t offset, size_t count) {
    try {
      read(file, offset, count);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  std::string path_ = folder_ / "a";
};

TEST_F(InputFileTest, ReadsByPosition) {
  write("0123456789");
  const InputFile file(path_);
  EXPECT_EQ(file.bytes(), 10);
  EXPECT_EQ(read(file, 7, 3), "789");
  EXPECT_EQ(read(file, 0, 2), "01");
  EXPECT_EQ(read(file, 10, 0), "");
  EXPECT_THROW(read(file, 8, 3), Error);
}

TEST_F(InputFileTest, WhatIsRemovedOrReplacedIsStillRead) {
  write("old");
  const InputFile file(path_);
  std::filesystem::remove(path_);
  write("new");
  EXPECT_EQ(read(file, 0, 3), "old");
  file.check_unchanged();
}

TEST_F(InputFileTest, WhatWasShortenedIsAnErrorEvenWhereBytesAreLeft) {
  write("0123456789");
  const InputFile file(path_);
  std::filesystem::resize_file(path_, 6);
  EXPECT_THAT(error(file, 4, 4), AllOf(HasSubstr(path_), HasSubstr("6 bytes, 10 were there")));
  EXPECT_THAT(error(file, 0, 2), HasSubstr("6 bytes, 10 were there"));
  std::filesystem::resize_file(path_, 0);
  EXPECT_THAT(error(file, 0, 2), HasSubstr("0 bytes, 10 were there"));
}

TEST_F(InputFileTest, WhatIsAppendedIsNotSeenButIsAChange) {
  write("0123");
  const InputFile file(path_);
  std::ofstream(path_, std::ios::app) << "45";
  EXPECT_EQ(file.bytes(), 4);
  EXPECT_EQ(read(file, 2, 2), "23");
  EXPECT_THROW(file.check_unchanged(), InputError);
}

TEST_F(InputFileTest, RewritingInPlaceIsAChange) {
  write("0123");
  std::filesystem::last_write_time(path_,
                                   std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  const InputFile file(path_);
  file.check_unchanged();
  write("4567");
  EXPECT_THROW(file.check_unchanged(), InputError);
}

TEST_F(InputFileTest, PipesAndFoldersAreRefusedWithoutWaiting) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THROW(InputFile{path_}, Error);
  EXPECT_THROW(InputFile{folder_.path()}, Error);
  EXPECT_THROW(InputFile{path_ + "none"}, Error);
}

}  // namespace
}  // namespace longstride
