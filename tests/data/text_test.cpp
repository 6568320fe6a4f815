// Text and other bytes: plain, compressed, archived, in folders; the cache; refused files.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class TextTest : public data_test::DataTest {
 protected:
  Bytes read(const std::string& name) const {
    const Corpus corpus = open_corpus(config("text", name), at(name));
    EXPECT_EQ(corpus.record_bytes(), 0);
    return data_test::all_bytes(corpus);
  }
  std::string error(const std::string& name) const {
    return error_of([&] { open_corpus(config("text", name), at(name)); });
  }
};

TEST_F(TextTest, PlainFileIsReadWithoutACopy) {
  const Bytes bytes = data_test::noise(100001, 1);
  data_test::write_file(at("a.txt"), bytes);
  EXPECT_THAT(read("a.txt"), ElementsAreArray(bytes));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(TextTest, EveryCompressionGivesTheBytesBack) {
  const Bytes bytes = data_test::noise(300000, 2);
  for (const auto& [name, pack] : {std::pair{"a.xz", Pack::xz},
                                   {"a.gz", Pack::gzip},
                                   {"a.zst", Pack::zstd},
                                   {"a.bz2", Pack::bzip2},
                                   {"without_suffix", Pack::xz}}) {
    data_test::write_compressed(at(name), pack, bytes);
    EXPECT_EQ(read(name), bytes) << name;
  }
  EXPECT_THAT(cached(), SizeIs(5));
}

TEST_F(TextTest, ZerosInACompressedFileAreNoArchive) {
  const Bytes zeros(5000, 0);
  data_test::write_compressed(at("a.xz"), Pack::xz, zeros);
  EXPECT_EQ(read("a.xz"), zeros);
}

TEST_F(TextTest, ArchivesAreTheirMembersInTheirOrder) {
  const data_test::Members members{{"top/", {}},
                                   {"top/z.txt", bytes_of("first ")},
                                   {"top/.hidden", bytes_of("never ")},
                                   {"top/a.txt", bytes_of("second ")},
                                   {"./b.txt", bytes_of("third")}};
  data_test::write_tar(at("a.tar"), Pack::none, members);
  data_test::write_tar(at("a.tar.xz"), Pack::xz, members);
  data_test::write_tar(at("a.tgz"), Pack::gzip, members);
  data_test::write_zip(at("a.zip"), members);
  for (const char* name : {"a.tar", "a.tar.xz", "a.tgz", "a.zip"})
    EXPECT_EQ(read(name), bytes_of("first second third")) << name;
}

TEST_F(TextTest, FolderIsItsFilesInTheOrderOfTheirNames) {
  data_test::write_file(at("folder/b.txt"), "2");
  data_test::write_file(at("folder/a/z.txt"), "1");
  data_test::write_file(at("folder/.hidden"), "x");
  data_test::write_file(at("folder/.git/c"), "x");
  data_test::write_file(at("folder/empty"), "");
  data_test::write_compressed(at("folder/c.gz"), Pack::gzip, bytes_of("3"));
  EXPECT_EQ(read("folder"), bytes_of("123"));
}

TEST_F(TextTest, SecondOpeningUsesTheCacheAndAChangedSourceDoesNot) {
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("old"));
  int64_t decoded = 0;
  const auto progress = [&](int64_t bytes) { decoded = std::max(decoded, bytes); };
  open_corpus(config("text", "a.xz"), at("a.xz"), {.note = {}, .progress = progress});
  EXPECT_EQ(decoded, 3);
  decoded = -1;
  const Corpus again = open_corpus(config("text", "a.xz"), at("a.xz"), {.note = {}, .progress = progress});
  EXPECT_EQ(decoded, -1) << "decoded a second time";

  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("new"));
  std::filesystem::last_write_time(at("a.xz"),
                                   std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_EQ(read("a.xz"), bytes_of("new"));
  EXPECT_EQ(data_test::all_bytes(again), bytes_of("old")) << "an open corpus changed";
}

TEST_F(TextTest, DamagedCacheFileIsMadeAgain) {
  const Bytes bytes = data_test::noise(50000, 3);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes);
  read("a.xz");
  ASSERT_THAT(cached(), SizeIs(1));
  const std::string path = cache() + "/" + cached()[0];
  std::filesystem::resize_file(path, 30000);
  EXPECT_EQ(read("a.xz"), bytes);
  data_test::write_file(path, "something else");
  EXPECT_EQ(read("a.xz"), bytes);
}

TEST_F(TextTest, ProcessesAtTheSameTimeDecodeOnce) {
  const Bytes bytes = data_test::noise(3000000, 4);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes);
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    const pid_t pid = fork();
    if (pid == 0) {
      bool decoded = false;
      const Corpus corpus = open_corpus(config("text", "a.xz"), at("a.xz"),
                                        {.note = {}, .progress = [&](int64_t) { decoded = true; }});
      const bool same = data_test::all_bytes(corpus) == bytes;
      _exit(!same ? 2 : decoded ? 1 : 0);
    }
    children.push_back(pid);
  }
  int decoders = 0;
  for (const pid_t pid : children) {
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    decoders += WEXITSTATUS(status);
  }
  EXPECT_EQ(decoders, 1);
  EXPECT_THAT(cached(), SizeIs(1));
}

TEST_F(TextTest, LeftoversOfKilledProcessesAreRemoved) {
  const std::string hash(32, 'a');
  data_test::write_file(cache() + "/" + hash + ".0123456789abcdef.partial", "half");
  data_test::write_file(cache() + "/" + hash + ".2147483000-1.partial", "of an earlier version");
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  read("a.xz");
  EXPECT_THAT(cached(), SizeIs(1));
}

TEST_F(TextTest, DefaultCacheFolderFollowsTheEnvironment) {
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  DataConfig plain = config("text", "a.xz");
  plain.cache = "";
  setenv("XDG_CACHE_HOME", cache().c_str(), 1);
  open_corpus(plain, plain.path);
  EXPECT_EQ(cached(), std::vector<std::string>{"longstride"});
  unsetenv("XDG_CACHE_HOME");
  const std::string home = getenv("HOME") != nullptr ? getenv("HOME") : "";
  setenv("HOME", at("home").c_str(), 1);
  open_corpus(plain, plain.path);
  EXPECT_TRUE(std::filesystem::exists(at("home/.cache/longstride")));
  unsetenv("HOME");
  EXPECT_THAT(error_of([&] { open_corpus(plain, plain.path); }), HasSubstr("set data.cache"));
  setenv("HOME", home.c_str(), 1);
}

TEST_F(TextTest, CutOffOrDamagedInputIsRefusedAndLeavesNoCache) {
  const Bytes bytes = data_test::noise(400000, 5);
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes);
  data_test::write_compressed(at("a.gz"), Pack::gzip, bytes);
  data_test::write_compressed(at("a.zst"), Pack::zstd, bytes);
  data_test::write_compressed(at("a.bz2"), Pack::bzip2, bytes);
  data_test::write_zip(at("a.zip"), {{"a", bytes}, {"b", bytes}});
  data_test::write_tar(at("a.tar"), Pack::none, {{"a", bytes}, {"b", bytes}});
  data_test::write_tar(at("a.tar.xz"), Pack::xz, {{"a", bytes}, {"b", bytes}});
  for (const std::string suffix : {"xz", "gz", "zst", "bz2", "zip", "tar", "tar.xz"}) {
    for (const double part : {0.999, 0.6, 0.01}) {
      data_test::cut(at("a." + suffix), at("cut." + suffix), part);
      EXPECT_THAT(error("cut." + suffix), AllOf(HasSubstr("cut." + suffix), HasSubstr("cut off")))
          << suffix << " cut to " << part;
    }
    Bytes damaged = data_test::read_file(at("a." + suffix));
    damaged[damaged.size() / 3] ^= 0x10;
    data_test::write_file(at("bad." + suffix), damaged);
    // A tar holds no checksum of its members' bytes, and libarchive writes none into zstd.
    if (suffix == "tar" || suffix == "zst") continue;
    EXPECT_THAT(error("bad." + suffix), HasSubstr("damaged")) << suffix;
  }
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(TextTest, TarCutBetweenTwoMembersIsRefused) {
  data_test::write_tar(at("a.tar"), Pack::none, {{"a", Bytes(512, 'a')}, {"b", Bytes(512, 'b')}});
  Bytes bytes = data_test::read_file(at("a.tar"));
  bytes.resize(1024);  // one header, one block of data
  data_test::write_file(at("cut.tar"), bytes);
  EXPECT_THAT(error("cut.tar"), AllOf(HasSubstr("end mark"), HasSubstr("cut off")));
}

TEST_F(TextTest, MissingEmptyAndMisnamedInputIsNamed) {
  EXPECT_THAT(error("none.txt"), AllOf(HasSubstr("none.txt"), HasSubstr("No such file")));
  data_test::write_file(at("empty.txt"), "");
  EXPECT_THAT(error("empty.txt"), AllOf(HasSubstr("empty.txt"), HasSubstr("is empty")));
  std::filesystem::create_directories(at("hollow"));
  EXPECT_THAT(error("hollow"), AllOf(HasSubstr("hollow"), HasSubstr("no files")));
  data_test::write_file(at("blank/empty"), "");
  data_test::write_file(at("blank/empty2"), "");
  EXPECT_THAT(error("blank"), HasSubstr("is empty"));
  data_test::write_file(at("words.xz"), "these are words");
  EXPECT_THAT(error("words.xz"), AllOf(HasSubstr("named .xz"), HasSubstr("rename")));
  data_test::write_compressed(at("nothing.xz"), Pack::xz, {});
  EXPECT_THAT(error("nothing.xz"), HasSubstr("is empty"));
  EXPECT_THAT(error_of([&] { open_corpus(config("text", ""), ""); }), HasSubstr("data.path is not set"));
  EXPECT_THAT(error_of([&] { open_corpus(config("text", ""), "/dev/null"); }),
              HasSubstr("neither a file nor a folder"));
  EXPECT_THAT(error_of([&] { open_corpus(config("video", "empty.txt"), at("empty.txt")); }),
              HasSubstr("data.kind"));
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(TextTest, CacheFolderThatCannotBeWrittenIsNamed) {
  data_test::write_compressed(at("a.xz"), Pack::xz, bytes_of("text"));
  DataConfig bad = config("text", "a.xz");
  data_test::write_file(at("file"), "x");
  bad.cache = at("file") + "/cache";
  EXPECT_THAT(error_of([&] { open_corpus(bad, bad.path); }),
              AllOf(HasSubstr(bad.cache), HasSubstr("set data.cache")));
  bad = config("text", ".");
  bad.cache = at("cache");
  EXPECT_THAT(error_of([&] { open_corpus(bad, bad.path); }), HasSubstr("inside the data"));
}

// A limit on the size of files stands for a full disk.
TEST_F(TextTest, FullDiskIsAnErrorAndLeavesNothing) {
  data_test::write_compressed_run(at("a.xz"), Pack::xz, 7, 20 << 20);
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{8 << 20, 8 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      open_corpus(config("text", "a.xz"), at("a.xz"));
    } catch (const Error& error) {
      _exit(std::string(error.what()).find("set data.cache to a folder with room") != std::string::npos ? 0
                                                                                                        : 2);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_THAT(cached(), IsEmpty());
}

TEST_F(TextTest, MemoryStaysBoundedWhateverTheSize) {
  constexpr int64_t size = int64_t{200} << 20;
  // In a process of its own. Otherwise the decoder could reuse the compressor's freed memory unnoticed.
  const pid_t writer = fork();
  if (writer == 0) {
    data_test::write_compressed_run(at("a.xz"), Pack::xz, 7, size);
    _exit(0);
  }
  waitpid(writer, nullptr, 0);
  const pid_t pid = fork();
  if (pid == 0) {
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    const Corpus corpus = open_corpus(config("text", "a.xz"), at("a.xz"));
    getrusage(RUSAGE_SELF, &after);
    const int64_t grown = (after.ru_maxrss - before.ru_maxrss) / 1024;  // MiB
    _exit(corpus.size() != size ? 255 : static_cast<int>(std::min<int64_t>(grown, 254)));
  }
  int status = 0;
  waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_NE(WEXITSTATUS(status), 255) << "wrong size";
  RecordProperty("grown_mib", WEXITSTATUS(status));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(WEXITSTATUS(status), 50);
#endif
}

}  // namespace
}  // namespace longstride
