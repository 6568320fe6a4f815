#include "longstride/base/atomic_file.h"

#include <csignal>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// While it lives, no file can grow beyond `bytes`. Further writing fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_{};
};

ino_t inode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return status.st_ino;
}

TEST(AtomicFile, ReplacesTheOldContentWhole) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "x", [](ByteSink& sink) { sink.write("old"); });
  EXPECT_EQ(read_bytes(folder / "x"), "old");
  write_file_atomically(folder / "x", [&](ByteSink& sink) {
    sink.write("new ");
    EXPECT_EQ(read_bytes(folder / "x"), "old");
    sink.write("content");
  });
  EXPECT_EQ(read_bytes(folder / "x"), "new content");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("x"));
}

TEST(AtomicFile, AFailedWriterLeavesTheOldFileAndNothingElse) {
  const TemporaryFolder folder;
  write_bytes(folder / "x", "old");
  EXPECT_THROW(write_file_atomically(folder / "x",
                                     [](ByteSink& sink) {
                                       sink.write("half");
                                       throw std::logic_error("stop");
                                     }),
               std::logic_error);
  EXPECT_EQ(read_bytes(folder / "x"), "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("x"));
}

TEST(AtomicFile, NoSpaceNamesTheFileAndLeavesTheOldOne) {
  const TemporaryFolder folder;
  write_bytes(folder / "x", "old");
  const std::string megabyte(1 << 20, 'x');
  std::string message;
  {
    const FileSizeLimit limit(300'000);
    message = message_of<Error>(
        [&] { write_file_atomically(folder / "x", [&](ByteSink& sink) { sink.write(megabyte); }); });
  }
  EXPECT_THAT(message, AllOf(HasSubstr("cannot write " + (folder / "x")), HasSubstr("File too large")));
  EXPECT_EQ(read_bytes(folder / "x"), "old");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("x"));
}

TEST(AtomicFile, PlacesThatCannotBeWrittenAreNamed) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  const auto write = [](ByteSink& sink) { sink.write("x"); };
  EXPECT_THAT(message_of<Error>([&] { write_file_atomically(folder / "file/x", write); }),
              AllOf(HasSubstr(folder / "file/x"), HasSubstr("Not a directory")));
  EXPECT_THAT(message_of<Error>([&] { write_file_atomically(folder / "missing/x", write); }),
              AllOf(HasSubstr(folder / "missing/x"), HasSubstr("No such file or directory")));
  EXPECT_THAT(message_of<Error>([&] { AtomicDirectory directory(folder / "file/x"); }),
              HasSubstr(folder / "file/x"));
  EXPECT_THAT(message_of<Error>([&] { make_directories(folder / "file/x"); }), HasSubstr(folder / "file/x"));
  std::filesystem::create_directories(folder / "taken/by");
  EXPECT_THAT(message_of<Error>([&] { write_file_atomically(folder / "taken", write); }),
              AllOf(HasSubstr("cannot replace " + (folder / "taken")), HasSubstr("directory")));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("file", "taken"));
  if (geteuid() == 0) return;  // root may write everywhere
  std::filesystem::create_directory(folder / "locked");
  chmod((folder / "locked").c_str(), 0500);
  EXPECT_THAT(message_of<Error>([&] { write_file_atomically(folder / "locked/x", write); }),
              AllOf(HasSubstr(folder / "locked/x"), HasSubstr("Permission denied")));
}

TEST(AtomicDirectory, AppearsOnlyWithCommit) {
  const TemporaryFolder folder;
  {
    AtomicDirectory directory(folder / "result");
    directory.write_file("a", [](ByteSink& sink) { sink.write("1"); });
    EXPECT_FALSE(std::filesystem::exists(folder / "result"));
    EXPECT_THAT(message_of<Error>([&] { directory.write_file("a", [](ByteSink&) {}); }),
                HasSubstr(folder / "result/a"));
  }
  EXPECT_THAT(names_in(folder.path()), IsEmpty());
  for (const char* content : {"first", "second"}) {
    AtomicDirectory directory(folder / "result");
    directory.write_file(content, [&](ByteSink& sink) { sink.write(content); });
    directory.commit();
    EXPECT_THAT(names_in(folder / "result"), ElementsAre(content));
    EXPECT_EQ(read_bytes((folder / "result/") + content), content);
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre("result"));
}

TEST(AtomicDirectory, TemporariesOfTheDeadGoAndThoseOfTheLivingStay) {
  const TemporaryFolder folder;
  EXPECT_EQ(remove_stale_temporaries(folder / "missing"), 0);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    AtomicDirectory directory(folder / "dead");
    directory.write_file("a", [](ByteSink& sink) { sink.write("1"); });
    write_file_atomically(folder / "dead-file", [&](ByteSink& sink) {
      sink.write("1");
      if (write(ready[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    });
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  write_bytes(folder / "kept", "");
  AtomicDirectory living(folder / "living");
  EXPECT_EQ(remove_stale_temporaries(folder.path()), 0);  // the child is still alive
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  EXPECT_EQ(names_in(folder.path()).size(), 4u);
  EXPECT_EQ(remove_stale_temporaries(folder.path()), 2);
  living.commit();
  EXPECT_THAT(names_in(folder.path()), ElementsAre("kept", "living"));
}

TEST(AtomicFile, LinksReplaceAndCostNoSpace) {
  const TemporaryFolder folder;
  write_bytes(folder / "a", "A");
  write_bytes(folder / "b", "B");
  link_file_atomically(folder / "a", folder / "x");
  EXPECT_EQ(inode_of(folder / "x"), inode_of(folder / "a"));
  link_file_atomically(folder / "a", folder / "x");  // once more, the same file
  link_file_atomically(folder / "b", folder / "x");
  EXPECT_EQ(read_bytes(folder / "x"), "B");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("a", "b", "x"));
  EXPECT_THAT(message_of<Error>([&] { link_file_atomically(folder / "none", folder / "x"); }),
              HasSubstr(folder / "none"));
  EXPECT_EQ(read_bytes(folder / "x"), "B");
}

TEST(AtomicFile, ALinkIfAbsentLeavesWhatIsThereAndNoTemporary) {
  const TemporaryFolder folder;
  write_bytes(folder / "weights", "many");
  link_file_if_absent(folder / "weights", folder / "pin");
  EXPECT_EQ(std::filesystem::hard_link_count(folder / "pin"), 2u);
  write_bytes(folder / "others", "few");
  link_file_if_absent(folder / "others", folder / "pin");
  EXPECT_EQ(read_bytes(folder / "pin"), "many");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"others", "pin", "weights"}));
  EXPECT_THROW(link_file_if_absent(folder / "none", folder / "other pin"), Error);
}

TEST(AtomicFile, RemovesFoldersWhole) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "a/b");
  write_bytes(folder / "a/b/c", "x");
  remove_directory_atomically(folder / "a");
  EXPECT_THAT(names_in(folder.path()), IsEmpty());
  EXPECT_THAT(message_of<Error>([&] { remove_directory_atomically(folder / "a"); }), HasSubstr(folder / "a"));
}

}  // namespace
}  // namespace longstride
