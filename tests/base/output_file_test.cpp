#include "longstride/base/output_file.h"

#include <filesystem>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

void put(const std::string& path, const std::string& text, const OutputOptions& options = {}) {
  write_output(
      path, [&](ByteSink& sink) { sink.write(text); }, options);
}

int mode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0) << path;
  return static_cast<int>(status.st_mode & 07777);
}

TEST(OutputFile, LinksStayAndTheirTargetIsReplaced) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "far");
  write_bytes(folder / "far/target", "old");
  fs::create_symlink("far/target", folder / "link");
  fs::create_symlink(folder / "link", folder / "second");
  put(folder / "second", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "second") && fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_bytes(folder / "far/target"), "new");
  EXPECT_THAT(names_in(folder / "far"), ElementsAre("target"));

  fs::create_symlink("far/made", folder / "dangling");
  put(folder / "dangling", "made");
  EXPECT_TRUE(fs::is_symlink(folder / "dangling"));
  EXPECT_EQ(read_bytes(folder / "far/made"), "made");

  fs::create_symlink("circle", folder / "circle");
  EXPECT_THAT(message_of<Error>([&] { put(folder / "circle", ""); }), HasSubstr("lead nowhere"));
  fs::create_symlink("far", folder / "to-folder");
  EXPECT_THAT(message_of<Error>([&] { put(folder / "to-folder", ""); }), HasSubstr("that is a folder"));
}

TEST(OutputFile, PipesAndDescriptorsAreWrittenToAsTheyAre) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  const int reader = open((folder / "pipe").c_str(), O_RDONLY | O_NONBLOCK);
  put(folder / "pipe", "through");
  char got[16] = {};
  EXPECT_EQ(read(reader, got, sizeof got), 7);
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  close(reader);

  // Like a shell's redirection to a file that already has a beginning.
  const int file = open((folder / "file").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(write(file, "begun ", 6), 6);
  const struct stat before = [&] {
    struct stat s {};
    fstat(file, &s);
    return s;
  }();
  for (const char* name : {"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"})
    put(name + std::to_string(file), "x");
  fs::create_symlink("/proc/self/fd/" + std::to_string(file), folder / "stdout");
  put(folder / "stdout", "y");
  EXPECT_EQ(read_bytes(folder / "file"), "begun xxxy");
  EXPECT_EQ(fs::file_size(folder / "file"), 10u);
  struct stat after {};
  EXPECT_TRUE(stat((folder / "file").c_str(), &after) == 0 && after.st_ino == before.st_ino);
  EXPECT_TRUE(fs::is_symlink(folder / "stdout"));
  close(file);

  // A descriptor that the process opened for itself was not given to it.
  const int own = open((folder / "own").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  EXPECT_THAT(message_of<Error>([&] { put("/dev/fd/" + std::to_string(own), "x"); }), HasSubstr("not open"));
  EXPECT_THAT(message_of<Error>([&] { put("/dev/fd/99", "x"); }), HasSubstr("descriptor 99 is not open"));
  close(own);
  EXPECT_TRUE(find_output("/dev/null").direct);
  put("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(OutputFile, WhatAppearsMeanwhileStays) {
  const TemporaryFolder folder;
  const std::string error = message_of<Error>([&] {
    write_output(folder / "x",
                 [&](ByteSink& sink) {
                   sink.write("mine");
                   write_bytes(folder / "x", "theirs");
                 },
                 {.replace = false});
  });
  EXPECT_THAT(error, HasSubstr("appeared meanwhile"));
  EXPECT_EQ(read_bytes(folder / "x"), "theirs");
  EXPECT_THAT(names_in(folder.path()), ElementsAre("x"));
  put(folder / "y", "new", {.replace = false});
  EXPECT_EQ(read_bytes(folder / "y"), "new");
}

TEST(OutputFile, ModesAreThoseAskedForOrThoseThatWereThere) {
  const TemporaryFolder folder;
  const mode_t before = umask(022);
  put(folder / "new", "");
  EXPECT_EQ(mode_of(folder / "new"), 0644);
  put(folder / "asked", "", {.mode = 0664});
  EXPECT_EQ(mode_of(folder / "asked"), 0664);
  write_output(folder / "private",
               [&](ByteSink&) {
                 for (const std::string& name : names_in(folder.path()))
                   EXPECT_TRUE(!name.starts_with(".tmp-private") || mode_of(folder / name) == 0600) << name;
               },
               {.mode = 0600});
  EXPECT_EQ(mode_of(folder / "private"), 0600);
  put(folder / "private", "again");
  EXPECT_EQ(mode_of(folder / "private"), 0600);
  umask(before);
}

TEST(OutputFile, LongNamesWorkUpToTheSystemsLimit) {
  const TemporaryFolder folder;
  for (const size_t length : {size_t{200}, size_t{246}, size_t{255}}) {
    const std::string name(length, 'n');
    check_output(folder / name, "--output");
    put(folder / name, "x");
    EXPECT_EQ(read_bytes(folder / name), "x");
  }
  std::string wide;
  for (int i = 0; i < 127; ++i) wide += "\xC3\xBC";
  put(folder / wide, "x");
  EXPECT_THAT(message_of<Error>([&] { check_output(folder / std::string(256, 'n'), "--output"); }),
              HasSubstr("File name too long"));
  EXPECT_EQ(names_in(folder.path()).size(), 4u);
}

TEST(OutputFile, OnlyOwnTemporariesAreRemoved) {
  const TemporaryFolder folder;
  const std::vector<std::string> others{".tmp-x-keep", ".tmp-x-1-2-3x", ".tmp-x--1",
                                        ".tmp-x-1-",   ".tmp-x-1",      ".tmp-x.state-keep"};
  for (const std::string& name : others) write_bytes(folder / name, "precious");
  fs::create_directories(folder / ".tmp-x-7-7/inner");
  write_bytes(folder / ".tmp-x-1-2", "left behind");
  write_bytes(folder / ".tmp-x-1-3-4", "of x-1");
  EXPECT_EQ(remove_stale_temporaries(folder.path(), "x"), 1);
  EXPECT_EQ(remove_stale_temporaries(folder.path()), 1);
  std::vector<std::string> left = others;
  left.push_back(".tmp-x-7-7");
  EXPECT_THAT(names_in(folder.path()), testing::UnorderedElementsAreArray(left));
  const std::string name(250, 'n');
  write_bytes(folder / (".tmp-" + std::string(217, 'n') + "-1-2"), "left behind");
  EXPECT_EQ(remove_stale_temporaries(folder.path(), name), 1);
}

}  // namespace
}  // namespace longstride
