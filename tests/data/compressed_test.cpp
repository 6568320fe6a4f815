// Compressed files as other programs write them: several streams, frames to skip, long windows, padding and
// the like.
#include <gmock/gmock.h>

#include "longstride/data/compressed_input.h"
#include "longstride/data/corpus.h"

#include "tests/data/fixtures.h"

namespace longstride {
namespace {

using data_test::Bytes;
using data_test::bytes_of;
using data_test::error_of;
using data_test::Pack;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::pair<std::string, Pack>> kPacks{
    {"gz", Pack::gzip}, {"bz2", Pack::bzip2}, {"xz", Pack::xz}, {"zst", Pack::zstd}, {"lz4", Pack::lz4}};

class CompressedTest : public data_test::DataTest {
 protected:
  Corpus open(const std::string& name) const { return open_corpus(config("text", name), at(name)); }
  Bytes read(const std::string& name, const Bytes& file) const {
    data_test::write_file(at(name), file);
    return data_test::all_bytes(open(name));
  }
  std::string error(const std::string& name, const Bytes& file) const {
    data_test::write_file(at(name), file);
    return error_of([&] { open(name); });
  }
  Bytes packed(Pack pack, const Bytes& bytes) const {
    // libarchive fails to write this one.
    if (pack == Pack::lz4 && bytes.empty())
      return {0x04, 0x22, 0x4D, 0x18, 0x64, 0x40, 0xA7, 0, 0, 0, 0, 0x05, 0x5D, 0xCC, 0x02};
    data_test::write_compressed(at("packed"), pack, bytes);
    return data_test::read_file(at("packed"));
  }
};

Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Bytes skippable(uint8_t kind, const Bytes& content) {
  Bytes frame{static_cast<uint8_t>(0x50 + kind), 0x2A, 0x4D, 0x18};
  for (int shift = 0; shift < 32; shift += 8) frame.push_back(static_cast<uint8_t>(content.size() >> shift));
  return joined({frame, content});
}

// A frame of zstd with one uncompressed block whose header asks for a window of 2^(10 + exponent) bytes.
Bytes zstd_frame(int exponent, const Bytes& content) {
  const auto block = static_cast<uint32_t>(content.size() << 3 | 1);
  const Bytes head{0x28,
                   0xB5,
                   0x2F,
                   0xFD,
                   0,
                   static_cast<uint8_t>(exponent << 3),
                   static_cast<uint8_t>(block),
                   static_cast<uint8_t>(block >> 8),
                   static_cast<uint8_t>(block >> 16)};
  return joined({head, content});
}

TEST_F(CompressedTest, StreamsBehindEachOtherAreAllRead) {
  const Bytes first = data_test::noise(300000, 1), second = bytes_of("and a short one");
  for (const auto& [suffix, pack] : kPacks) {
    const Bytes one = packed(pack, first), two = packed(pack, second), none = packed(pack, {});
    EXPECT_EQ(read("a." + suffix, joined({one, two})), joined({first, second})) << suffix;
    EXPECT_EQ(read("b." + suffix, joined({two, none, one})), joined({second, first})) << suffix;
    for (const size_t missing : {one.size() / 2, size_t{1}}) {
      Bytes cut = joined({two, one});
      cut.resize(cut.size() - missing);
      EXPECT_THAT(error("cut." + suffix, cut), AllOf(HasSubstr("cut." + suffix), HasSubstr("cut off")))
          << suffix;
    }
    Bytes begun = two;
    begun.push_back(two[0]);
    EXPECT_THAT(error("begun." + suffix, begun), HasSubstr("cut off")) << suffix;
  }
}

TEST_F(CompressedTest, PaddingOfZerosIsNothing) {
  for (const auto& [suffix, pack] : kPacks) {
    if (pack == Pack::zstd && !data::reads_long_windows()) continue;  // libarchive refuses it
    EXPECT_EQ(read("a." + suffix, joined({packed(pack, bytes_of("text")), Bytes(512, 0)})), bytes_of("text"))
        << suffix;
  }
}

// Like the programs: gzip and bzip2 with a remark, xz and zstd not at all.
TEST_F(CompressedTest, OtherBytesBehindTheEndAreToldOrRefused) {
  for (const auto& [suffix, pack] : kPacks) {
    const Bytes file = joined({packed(pack, bytes_of("text")), bytes_of("something that is no stream")});
    if (pack == Pack::gzip || pack == Pack::bzip2) {
      EXPECT_EQ(read("a." + suffix, file), bytes_of("text")) << suffix;
      EXPECT_THAT(open("a." + suffix).description(), HasSubstr("27 bytes behind the end")) << suffix;
    } else {
      EXPECT_THAT(error("a." + suffix, file), HasSubstr("a." + suffix)) << suffix;
    }
  }
}

TEST_F(CompressedTest, FramesToSkipMayStandAnywhereUnderAnyName) {
  const Bytes content = data_test::noise(5000, 2);
  for (const Pack pack : {Pack::zstd, Pack::lz4}) {
    const Bytes frame = packed(pack, content);
    for (const std::string name : {"a.dat", "b", pack == Pack::zstd ? "c.zst" : "c.lz4"})
      EXPECT_EQ(read(name, joined({skippable(0, {}), skippable(15, Bytes(2000, 1)), frame,
                                   skippable(3, bytes_of("x")), frame})),
                joined({content, content}))
          << name;
  }
  EXPECT_THAT(error("nothing.zst", skippable(1, bytes_of("note"))), HasSubstr("is empty"));
  // Nothing compressed follows, so the bytes are taken as they are.
  const Bytes other = joined({skippable(1, bytes_of("note")), bytes_of("text, no frame")});
  EXPECT_EQ(read("other", other), other);
}

TEST_F(CompressedTest, LongWindowsOfZstdAreRead) {
  const Bytes content = data_test::noise(9000, 3);
  EXPECT_EQ(read("short.zst", zstd_frame(17, content)), content);
  if (!data::reads_long_windows()) {
    EXPECT_THAT(error("long.zst", zstd_frame(21, content)), HasSubstr("--long=27"));
    return;
  }
  for (const int exponent : {18, 20, 21})
    EXPECT_EQ(read("long" + std::to_string(exponent) + ".zst", zstd_frame(exponent, content)), content);
  Bytes cut = zstd_frame(21, content);
  cut.pop_back();
  EXPECT_THAT(error("cut.zst", cut), AllOf(HasSubstr("ends early"), HasSubstr("cut off")));
  EXPECT_THAT(error("over.zst", zstd_frame(25, content)), HasSubstr("over.zst"));
}

TEST_F(CompressedTest, AnEmptyStreamBesideOthersAddsNothing) {
  data_test::write_file(at("f/a.txt"), "text");
  data_test::write_compressed(at("f/b.gz"), Pack::gzip, {});
  EXPECT_EQ(data_test::all_bytes(open("f")), bytes_of("text"));
}

}  // namespace
}  // namespace longstride
