// The compressed file: what is written is read, and no damage passes.
#include "longstride/compress/container.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::AnyOf;
using testing::HasSubstr;

CompressedHeader some_header() {
  CompressedHeader header;
  header.kind = "audio";
  header.extension = ".wav";
  header.bytes = 25;
  header.before = "RIFF\n\n";
  header.after = "\0end"s;
  header.model = "0123456789abcdef0123456789abcdef";
  header.step = 1200;
  header.weights = "int8";
  header.precision = "bf16";
  header.device = "cpu: some";
  header.settings = {"compute.device=cpu"};
  header.probe = "fedcba9876543210";
  header.context = 5;
  header.streams = 2;
  header.frame_bytes = 10;
  return header;
}

std::vector<uint8_t> part(int64_t bytes, uint8_t first) {
  std::vector<uint8_t> result;
  for (int64_t i = 0; i < bytes; ++i) result.push_back(static_cast<uint8_t>(first + i));
  return result;
}

TEST(CompressedFile, PortableOnesSayWhichArithmetic) {
  const TemporaryFolder folder;
  CompressedHeader header = some_header();
  header.weights = "auto";
  header.bytes = 0;
  header.portable = 7;
  for (const bool with_model : {false, true}) {
    const std::vector<uint8_t> weights = part(9, 3);
    if (with_model) header.model_config = "[model]", header.model_weights = weights;
    write_file_atomically(folder / "x", [&](ByteSink& sink) { CompressedWriter(sink, header).finish(); });
    const CompressedFile file(folder / "x");
    EXPECT_EQ(file.header().portable, 7);
    EXPECT_EQ(file.header().model_config, header.model_config);
    EXPECT_EQ(file.header().model_weights.size(), header.model_weights.size());
  }
}

TEST(CompressedHeader, SizesThatNoCompressorMakesAreRefused) {
  const auto refusal = [](auto&& change) {
    CompressedHeader header = some_header();
    change(header);
    const TemporaryFolder folder;
    return message_of<Error>([&] {
      write_file_atomically(folder / "x", [&](ByteSink& sink) { CompressedWriter(sink, header); });
    });
  };
  EXPECT_THAT(refusal([](CompressedHeader& h) { h.bytes = h.frame_bytes = 3'000'000'000; }),
              HasSubstr("frames of"));
  for (const char* extension : {".a/b", "txt", ".a\n", ".\x1b[2K", ".\xe9"})
    EXPECT_THAT(refusal([&](CompressedHeader& h) { h.extension = extension; }),
                HasSubstr("its extension is"));
  EXPECT_THAT(refusal([](CompressedHeader& h) { h.streams = 65; }), HasSubstr("65 windows"));
  EXPECT_THAT(refusal([](CompressedHeader& h) { h.context = int64_t{1} << 60; }), HasSubstr("windows of"));
}

class ContainerTest : public testing::Test {
 protected:
  std::string write(const CompressedHeader& header) {
    const std::string path = folder_ / "file";
    write_file_atomically(path, [&](ByteSink& sink) {
      CompressedWriter writer(sink, header);
      for (int64_t at = 0; at < header.bytes; at += header.frame_bytes) {
        const auto bytes = std::min(header.frame_bytes, header.bytes - at);
        writer.add(part(bytes, static_cast<uint8_t>(at)), part(bytes / 2, static_cast<uint8_t>(100 + at)));
      }
      written_ = writer.finish();
    });
    return path;
  }
  // The message with which `content` is refused.
  std::string refusal(const std::string& content) {
    write_bytes(folder_ / "other", content);
    return message_of<Error>([&] { CompressedFile(folder_ / "other"); });
  }
  // As a person would alter it, checksum and all.
  std::string forged(const std::string& from, const std::string& to) {
    std::string content = read_bytes(folder_ / "file");
    content.resize(content.size() - 32);
    const size_t at = content.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    content.replace(at, from.size(), to);
    return refusal(content + checksum_of(content.data(), std::ssize(content)));
  }

  TemporaryFolder folder_;
  int64_t written_ = 0;
};

TEST_F(ContainerTest, ReadsWhatWasWritten) {
  const CompressedHeader wrote = some_header();
  const CompressedFile file(write(wrote));
  const CompressedHeader& read = file.header();
  EXPECT_EQ(read.kind, wrote.kind);
  EXPECT_EQ(read.extension, wrote.extension);
  EXPECT_EQ(read.bytes, wrote.bytes);
  EXPECT_EQ(read.before, wrote.before);
  EXPECT_EQ(read.after, wrote.after);
  EXPECT_EQ(read.model, wrote.model);
  EXPECT_EQ(read.step, wrote.step);
  EXPECT_EQ(read.weights, wrote.weights);
  EXPECT_EQ(read.precision, wrote.precision);
  EXPECT_EQ(read.device, wrote.device);
  EXPECT_EQ(read.settings, wrote.settings);
  EXPECT_EQ(read.probe, wrote.probe);
  EXPECT_EQ(read.context, wrote.context);
  EXPECT_EQ(read.streams, wrote.streams);
  EXPECT_EQ(read.frame_bytes, wrote.frame_bytes);
  EXPECT_EQ(file.bytes(), written_);
  ASSERT_EQ(file.frames().size(), 3u);
  EXPECT_EQ(file.frames()[2].bytes, 5);
  EXPECT_THAT(file.frames()[1].code, testing::ElementsAreArray(part(5, 110)));
  EXPECT_EQ(file.frames()[1].checksum, frame_checksum(part(10, 10)));
}

TEST_F(ContainerTest, AModelLiesBeforeTheFrames) {
  CompressedHeader header = some_header();
  const std::string plain = read_bytes(write(header));
  const std::vector<uint8_t> weights = part(77, 0);
  header.model_config = "[model]\n";
  header.model_weights = weights;
  const CompressedFile file(write(header));
  EXPECT_EQ(file.header().model_config, "[model]\n");
  EXPECT_THAT(file.header().model_weights, testing::ElementsAreArray(weights));
  EXPECT_EQ(file.header().after, header.after);
  EXPECT_EQ(file.frames().size(), 3u);
  EXPECT_EQ(file.bytes(), written_);
  EXPECT_TRUE(plain.starts_with("longstride compressed 1\n"));
  EXPECT_THAT(forged("compressed 2\n", "compressed 1\n"), HasSubstr("damaged"));
  EXPECT_THAT(forged("compressed 2\n", "compressed 4\n"), HasSubstr("format 4, this version"));
  EXPECT_THAT(forged("compressed 2\n", "compressed 3\n"), HasSubstr("portable"));
  EXPECT_THAT(forged("\"model_config\":8", "\"model_config\":0"),
              HasSubstr("config of its model has 0 bytes"));
  EXPECT_THAT(forged("\"model_config\":8", "\"model_config\":2000000"), HasSubstr("2000000 bytes"));
  EXPECT_THAT(forged("\"model_weights\":77", "\"model_weights\":78"), HasSubstr("damaged"));
}

TEST_F(ContainerTest, EmptyOnesAndPictures) {
  CompressedHeader header = some_header();
  header.bytes = 0;
  header.kind = "text";
  EXPECT_TRUE(CompressedFile(write(header)).frames().empty());
  header.kind = "image";
  header.bytes = 24;
  header.shape = {2, 4, 3};
  EXPECT_EQ(CompressedFile(write(header)).header().shape, header.shape);
}

TEST_F(ContainerTest, NoByteMayChange) {
  const std::string content = read_bytes(write(some_header()));
  for (size_t at = 0; at < content.size(); ++at)
    for (const int flip : {1, 0x80}) {
      std::string altered = content;
      altered[at] = static_cast<char>(altered[at] ^ flip);
      EXPECT_THAT(refusal(altered), AnyOf(HasSubstr("other is damaged"), HasSubstr("other is no file that")))
          << at;
    }
}

TEST_F(ContainerTest, NoByteMayBeMissing) {
  const std::string content = read_bytes(write(some_header()));
  for (size_t size = 0; size < content.size(); ++size)
    EXPECT_THAT(refusal(content.substr(0, size)),
                AnyOf(HasSubstr("other is damaged"), HasSubstr("other is no file that")))
        << size;
  EXPECT_THAT(refusal(content + "x"), HasSubstr("damaged"));
  EXPECT_THAT(refusal(content + content), HasSubstr("damaged"));
}

TEST_F(ContainerTest, WhatDoesNotFitIsRefusedWithARightChecksum) {
  write(some_header());
  EXPECT_THAT(forged("compressed 1\n", "compressed 2\n"), HasSubstr("damaged: key 'model_config' not found"));
  EXPECT_THAT(forged("\"bytes\":25", "\"bytes\":26"), HasSubstr("damaged: frame 2 has 5"));
  EXPECT_THAT(forged("\"bytes\":25", "\"bytes\":15"), HasSubstr("damaged: frame 1 has 10"));
  EXPECT_THAT(forged("\"bytes\":25", "\"bytes\":-1"), HasSubstr("damaged"));
  EXPECT_THAT(forged("\"bytes\":25", "\"bytes\":\"a\""), HasSubstr("damaged"));
  EXPECT_THAT(forged("\"bytes\":25", "\"byte\":25"), HasSubstr("damaged"));
  EXPECT_THAT(forged("\"streams\":2", "\"streams\":0"), HasSubstr("windows side by side"));
  EXPECT_THAT(forged("\"streams\":2", "\"streams\":900000000"), HasSubstr("windows side by side"));
  EXPECT_THAT(forged("\"kind\":\"audio\"", "\"kind\":\"film\""), HasSubstr("film"));
  EXPECT_THAT(forged("\"weights\":\"int8\"", "\"weights\":\"int4\""), HasSubstr("its weights are int4"));
  EXPECT_THAT(forged("\"kind\":\"audio\"", "\"kind\":\"image\""), HasSubstr("picture"));
  EXPECT_THAT(forged("\"before\":6", "\"before\":600000"), HasSubstr("missing"));
  EXPECT_THAT(forged("\"before\":6", "\"before\":-6"), HasSubstr("before must be a whole number"));
  // What the JSON library would make another number of.
  for (const char* number : {"25.5", "1e300", "-1", "true", "18446744073709551615"})
    EXPECT_THAT(forged("\"bytes\":25", std::string("\"bytes\":") + number),
                HasSubstr("damaged: bytes must be a whole number"));
  EXPECT_THAT(forged("\"streams\":2", "\"streams\":2.5"), HasSubstr("streams must be a whole number"));
  EXPECT_THAT(forged("\"device\":\"cpu: some\"", "\"device\":7"), testing::Not(HasSubstr("json.exception")));
  EXPECT_THAT(forged("{", "["), HasSubstr("damaged"));
  EXPECT_THAT(forged("defgh", "defgi"), HasSubstr("frame 0 was altered"));
  EXPECT_THAT(refusal(""), HasSubstr("no file that longstride compressed"));
}

}  // namespace
}  // namespace longstride
