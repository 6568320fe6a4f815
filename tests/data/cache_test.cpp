// The cache of decoded data: stale, damaged, planted and foreign files; waits; full disks.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <png.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

namespace fs = std::filesystem;
using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class CacheTest : public data_test::DataTest {
 protected:
  Bytes read(const DataConfig& wanted) {
    notes_.clear();
    decoded_ = false;
    const Corpus corpus = open_corpus(wanted, wanted.path,
                                      {.note = [&](const std::string& line) { notes_ += line + "\n"; },
                                       .progress = [&](int64_t bytes) { decoded_ = decoded_ || bytes > 0; }});
    return data_test::all_bytes(corpus);
  }
  Bytes read(const std::string& name) { return read(config("text", name)); }
  std::string only_entry() const { return cache() + "/" + cached().at(0); }
  // Sets one modification time on everything below `name`.
  void set_times(const std::string& name) {
    const fs::file_time_type old = fs::file_time_type::clock::now() - std::chrono::hours(1000);
    if (time_ == fs::file_time_type{}) time_ = old;
    if (!fs::is_directory(at(name))) return fs::last_write_time(at(name), time_);
    for (const auto& entry : fs::recursive_directory_iterator(at(name)))
      if (entry.is_regular_file()) fs::last_write_time(entry.path(), time_);
  }

  std::string notes_;
  bool decoded_ = false;
  fs::file_time_type time_{};
};

// As reproducible archives and `cp -p` leave them.
TEST_F(CacheTest, SourcesOfTheSameSizeAndTimeAreDecodedAgain) {
  const auto pack = [&](const std::string& name, char content) {
    const Bytes text(600, static_cast<uint8_t>(content));
    if (name == "folder") {
      data_test::write_file(at("folder/x"), text);
      data_test::write_file(at("folder/y"), text);
    } else {
      data_test::write_tar(at(name), Pack::none, {{"x", text}, {"y", text}});
    }
    set_times(name);
  };
  for (const std::string name : {"a.tar", "folder"}) {
    pack(name, 'o');
    EXPECT_EQ(read(name), Bytes(1200, 'o')) << name;
    pack(name, 'n');  // written over: the inode stays
    EXPECT_EQ(read(name), Bytes(1200, 'n')) << name;
    pack("b" + name, 'r');
    if (name == "folder") {
      data_test::write_file(at("new"), Bytes(600, 'r'));
      fs::last_write_time(at("new"), time_);
      fs::rename(at("new"), at("folder/y"));
      Bytes both(600, 'n');
      both.insert(both.end(), 600, 'r');
      EXPECT_EQ(read(name), both);
    } else {
      fs::rename(at("b" + name), at(name));
      EXPECT_EQ(read(name), Bytes(1200, 'r')) << name;
    }
  }
}

TEST_F(CacheTest, PicturesAndSoundsOfTheSameSizeAndTimeAreDecodedAgain) {
  DataConfig pictures = config("image", "a.bin");
  for (const uint8_t value : {1, 2}) {
    Bytes records(3073, value);
    data_test::write_file(at("a.bin"), records);
    set_times("a.bin");
    EXPECT_EQ(read(pictures), Bytes(3072, value));
  }
  DataConfig sound = config("audio", "a.wav");
  sound.sample_rate = 8000;
  Bytes before;
  for (const float value : {0.1f, 0.5f}) {
    data_test::write_sound(at("a.wav"), 0x010002, 8000, 1, std::vector<float>(400, value));
    set_times("a.wav");
    const Bytes now = read(sound);
    EXPECT_NE(now, before);
    before = now;
  }
}

TEST_F(CacheTest, OneFlippedBitAnywhereIsFoundAndMadeGood) {
  const Bytes bytes = data_test::noise(50000, 3);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes);
  read("a.xz");
  ASSERT_THAT(cached(), SizeIs(1));
  const std::string entry = only_entry();
  for (const size_t where : {size_t{4096}, size_t{30000}, size_t{4096 + 49999}, size_t{45}}) {
    Bytes damaged = data_test::read_file(entry);
    damaged[where] ^= 4;
    data_test::write_file(entry, damaged);
    EXPECT_EQ(read("a.xz"), bytes) << where;
    EXPECT_TRUE(decoded_) << where;
    EXPECT_THAT(notes_, AllOf(HasSubstr(entry), HasSubstr("damaged"), HasSubstr("again"))) << where;
    EXPECT_EQ(read("a.xz"), bytes);
    EXPECT_FALSE(decoded_);
    EXPECT_THAT(notes_, IsEmpty());
  }
}

TEST_F(CacheTest, FilesThatOthersMayWriteOrThatAreLinksAreNotTaken) {
  const Bytes bytes = data_test::noise(5000, 3);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes);
  read("a.xz");
  const std::string entry = only_entry();
  struct stat status {};
  ASSERT_EQ(stat(entry.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0022, 0u);
  // A change of its permissions makes it another file: whoever may write it now may have written it.
  fs::permissions(entry, fs::perms::others_write, fs::perm_options::add);
  EXPECT_EQ(read("a.xz"), bytes);
  EXPECT_THAT(notes_, HasSubstr("can be written by other users"));
  EXPECT_TRUE(decoded_);
  // A planted link is replaced, and its target stays as it is.
  fs::remove(entry);
  data_test::write_file(at("victim"), "theirs");
  fs::create_symlink(at("victim"), entry);
  EXPECT_EQ(read("a.xz"), bytes);
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(entry)));
  EXPECT_EQ(data_test::read_file(at("victim")), bytes_of("theirs"));
  if (geteuid() != 0) return;
  // Only root can give a file to another user.
  ASSERT_EQ(chown(entry.c_str(), 12345, 12345), 0);
  EXPECT_EQ(read("a.xz"), bytes);
  EXPECT_THAT(notes_, HasSubstr("belongs to another user"));
}

TEST_F(CacheTest, FilesOfOthersInTheFolderStay) {
  const std::string hash(32, 'a');
  data_test::write_file(cache() + "/movie.mkv.partial", "1");
  data_test::write_file(cache() + "/0123.99.partial", "1");
  data_test::write_file(cache() + "/" + hash + ".99x-1.partial", "1");
  data_test::write_file(cache() + "/" + hash + ".partial", "1");
  data_test::write_file(cache() + "/" + std::string(32, 'A') + ".0123456789abcdef.partial", "1");
  fs::create_directories(cache() + "/empty.partial");
  fs::create_directories(cache() + "/" + hash + ".0123456789abcdef.partial");
  const size_t before = cached().size();
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  read("a.xz");
  EXPECT_THAT(cached(), SizeIs(before + 1));
}

TEST_F(CacheTest, AnotherDecodingDoesNotBlockAndItsFilesStay) {
  // Another process holds the folder's lock, as earlier versions do, and the lock of another cache file.
  const std::string other = cache() + "/" + std::string(32, 'b');
  data_test::write_file(other + ".lock", "");
  data_test::write_file(other + ".0123456789abcdef.partial", "half");
  const int folder = open(cache().c_str(), O_RDONLY | O_DIRECTORY),
            lock = open((other + ".lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(folder, LOCK_EX), 0);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  EXPECT_EQ(read("a.xz"), bytes_of("text"));
  EXPECT_TRUE(fs::exists(other + ".0123456789abcdef.partial"));
  close(folder), close(lock);
  data_test::write_compressed(at("b.xz"), Pack::xz, bytes_of("text"));
  read("b.xz");
  EXPECT_FALSE(fs::exists(other + ".0123456789abcdef.partial"));
  EXPECT_THAT(cached(), SizeIs(2));
}

TEST_F(CacheTest, AWaitIsSaid) {
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  read("a.xz");
  const std::string entry = only_entry();
  fs::remove(entry);
  data_test::write_file(entry + ".lock", "");
  const int lock = open((entry + ".lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  std::string said;
  std::thread reader([&] {
    const DataConfig wanted = config("text", "a.xz");
    open_corpus(wanted, wanted.path,
                {.note =
                     [&](const std::string& line) {
                       said = line;
                       flock(lock, LOCK_UN);  // now the other is ready
                     },
                 .progress = {}});
  });
  reader.join();
  close(lock);
  EXPECT_THAT(said, AllOf(HasSubstr("waiting for another process"), HasSubstr("a.xz")));
  EXPECT_THAT(cached(), SizeIs(1));
}

TEST_F(CacheTest, SourcesThatChangeWhileTheyAreDecodedAreRefused) {
  data_test::write_file(at("folder/a"), Bytes(9 << 20, 'a'));
  data_test::write_file(at("folder/b"), Bytes(1000, 'b'));
  const DataConfig wanted = config("text", "folder");
  const auto open_while = [&](const std::function<void()>& change) {
    bool done = false;
    return error_of([&] {
      open_corpus(wanted, wanted.path, {.note = {}, .progress = [&](int64_t) {
                                          if (!std::exchange(done, true)) change();
                                        }});
    });
  };
  EXPECT_THAT(open_while([&] { fs::resize_file(at("folder/b"), 10); }),
              AllOf(HasSubstr("folder/b"), HasSubstr("10 bytes, 1000 were there")));
  data_test::write_file(at("folder/b"), Bytes(1000, 'b'));
  set_times("folder");
  EXPECT_THAT(open_while([&] { data_test::write_file(at("folder/b"), Bytes(1000, 'c')); }),
              AllOf(HasSubstr("folder/b"), HasSubstr("while it was read")));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(CacheTest, PicturesAreKeptOnceWhateverIsKnownOfTheirShape) {
  const Bytes rows = data_test::noise(4 * 5 * 3, 5);
  const Bytes png = data_test::make_png(rows, 4, 5, {.colour_type = PNG_COLOR_TYPE_RGB});
  data_test::write_file(at("p/1.png"), png);
  data_test::write_file(at("p/2.png"), png);
  DataConfig unknown = config("image", "p"), known = unknown;
  known.image_height = 4, known.image_width = 5, known.image_channels = 3;
  const Bytes pixels = read(unknown);
  EXPECT_EQ(read(known), pixels);
  EXPECT_FALSE(decoded_) << "decoded twice";
  EXPECT_THAT(cached(), SizeIs(1));
  fs::remove(only_entry());
  EXPECT_EQ(read(known), pixels);
  EXPECT_EQ(read(unknown), pixels);
  EXPECT_FALSE(decoded_) << "decoded twice, the other way round";
  DataConfig grey = known;
  grey.image_channels = 1;
  EXPECT_EQ(read(grey).size(), 40u);
  EXPECT_EQ(read(known), pixels);
  EXPECT_EQ(read(unknown), pixels);
  EXPECT_FALSE(decoded_);
  EXPECT_THAT(cached(), SizeIs(2));
  DataConfig wrong = known;
  wrong.image_height = 5;
  EXPECT_THAT(error_of([&] { read(wrong); }), HasSubstr("expected 5 x 5 x 3"));
}

// The disk is not filled to the last byte: others and the checkpoints need some.
TEST_F(CacheTest, ADiskThatIsNearlyFullIsLeftSome) {
  data_test::write_compressed_run(at("a.xz"), Pack::xz, 7, 100 << 20);
  fs::create_directories(cache());
  const pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", cache().c_str(), "tmpfs", 0, "size=40m") != 0)
      _exit(77);
    try {
      read("a.xz");
    } catch (const Error& error) {
      const std::string message = error.what();
      const bool clear = message.find("a.xz gave ") != std::string::npos &&
                         message.find("left for others") != std::string::npos;
      _exit(clear && cached().empty() ? 0 : 2);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "a small disk can be made by root only";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace longstride
