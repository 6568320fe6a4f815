// A file taken apart for a model and put together again, without any model.
#include "longstride/compress/material.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/data/mulaw_file.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

class MemorySink final : public ByteSink {
 public:
  using ByteSink::write;
  void write(const void* data, int64_t bytes) override {
    content.append(static_cast<const char*>(data), static_cast<size_t>(bytes));
  }
  std::string content;
};

class MaterialTest : public testing::Test {
 protected:
  // The file after a coding that takes each byte for its own code, in frames of `frame` bytes.
  std::string there_and_back(const RunConfig& config, const std::string& path, int64_t frame) {
    const CompressMaterial material(config, path);
    CompressedHeader header;
    material.describe(header);
    header.context = config.model.context;
    header.streams = 1;
    header.precision = "f32";
    header.frame_bytes = frame;
    write_file_atomically(folder_ / "packed", [&](ByteSink& sink) {
      CompressedWriter writer(sink, header);
      for (int64_t at = 0; at < material.size(); at += frame) {
        const std::vector<uint8_t> bytes = material.read(at, std::min(frame, material.size() - at));
        writer.add(bytes, bytes);
      }
      writer.finish();
    });
    MemorySink sink;
    const CompressedFile packed(folder_ / "packed");
    const int64_t written =
        write_original(sink, packed, [](const CompressedFrame& frame, std::span<uint8_t> bytes) {
          std::copy(frame.code.begin(), frame.code.end(), bytes.begin());
        });
    EXPECT_EQ(written, std::ssize(sink.content));
    return sink.content;
  }

  TemporaryFolder folder_;
};

TEST_F(MaterialTest, TextIsItself) {
  const std::string text = "some lines\nof text\n";
  write_bytes(folder_ / "a.txt", text);
  RunConfig config;
  config.data.kind = "text";
  config.model.context = 4;
  EXPECT_EQ(there_and_back(config, folder_ / "a.txt", 8), text);
}

TEST_F(MaterialTest, SoundKeepsWhatSurroundsItsSamples) {
  const std::string samples = "\x01\x80\xff\x7f a sound", file = mulaw_file(samples, 12000);
  write_bytes(folder_ / "a.wav", file);
  RunConfig config;
  config.data.kind = "audio";
  config.data.sample_rate = 12000;
  config.model.context = 4;
  EXPECT_EQ(CompressMaterial(config, folder_ / "a.wav").size(), std::ssize(samples));
  EXPECT_EQ(there_and_back(config, folder_ / "a.wav", 8), file);
}

TEST_F(MaterialTest, AFileOfAnotherKindIsRefused) {
  write_bytes(folder_ / "a.txt", "no sound");
  RunConfig config;
  config.data.kind = "audio";
  EXPECT_THROW(CompressMaterial(config, folder_ / "a.txt"), Error);
}

}  // namespace
}  // namespace longstride
