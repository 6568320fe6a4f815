#include "longstride/train/event_file.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/support/temporary_folder.h"
#include "tests/train/event_reader.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;

std::string hex(std::string_view bytes) {
  std::string text;
  for (const unsigned char c : bytes) text += fmt::format("{:02x}", c);
  return text;
}

TEST(EventFile, Crc32cOfKnownTexts) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  // RFC 3720, appendix B.4.
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i);
  EXPECT_EQ(crc32c(ascending), 0x46dd794eu);
}

TEST(EventFile, TheFirstRecordIsTheVersionAsTensorBoardWritesIt) {
  const TemporaryFolder folder;
  const EventFile file(folder.path(), 0.0, -1);
  const std::string bytes = read_bytes(file.path());
  // Length 15, its checksum, field 3 with 13 characters, its checksum.
  const std::string message = "\x1a\x0d"s + "brain.Event:2";
  ASSERT_EQ(bytes.size(), 8u + 4 + 15 + 4);
  EXPECT_EQ(hex(bytes.substr(0, 8)), "0f00000000000000");
  EXPECT_EQ(bytes.substr(12, 15), message);
  EXPECT_EQ(bytes, tf_record(message));
}

TEST(EventFile, ANewFileSortsAfterTheNewestThereIs) {
  const TemporaryFolder folder;
  const std::string first = EventFile(folder.path(), 1700000000, -1).path();
  const std::string same_second = EventFile(folder.path(), 1700000000, 3).path();
  const std::string clock_went_back = EventFile(folder.path(), 1699990000, 5).path();
  write_bytes(folder / "events.out.tfevents.1700009999.zzz.0000", "");
  const std::string after_another_host = EventFile(folder.path(), 1700009999, 7).path();
  EXPECT_LT(first, same_second);
  EXPECT_LT(same_second, clock_went_back);
  EXPECT_LT(folder / "events.out.tfevents.1700009999.zzz.0000", after_another_host);
}

TEST(EventFile, RecordBytes) {
  // Masking as described for TFRecord: rotate right by 15, add 0xa282ead8.
  const auto masked = [](uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; };
  const auto little_endian = [](uint64_t number, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(number >> (8 * i) & 255);
    return text;
  };
  const std::string length = little_endian(9, 8);
  EXPECT_EQ(hex(tf_record("123456789")), hex(length + little_endian(masked(crc32c(length)), 4) + "123456789" +
                                             little_endian(masked(0xe3069283u), 4)));
}

TEST(EventFile, ScalarsComeBack) {
  const TemporaryFolder folder;
  EventFile file(folder.path(), 1700000000.5, 41);
  EXPECT_THAT(file.path(), HasSubstr("/events.out.tfevents.1700000000."));
  file.add(42, 1700000001.25, {{"loss/train", 2.5}, {"speed", 1e9}});
  const std::vector<ReadEvent> events = read_events(file.path());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].time, 1700000000.5);
  EXPECT_EQ(events[1].step, 42);
  EXPECT_TRUE(events[1].starts_session);
  EXPECT_EQ(events[2].step, 42);
  EXPECT_EQ(events[2].time, 1700000001.25);
  EXPECT_EQ(events[2].scalars,
            (std::vector<std::pair<std::string, float>>{{"loss/train", 2.5f}, {"speed", 1e9f}}));
}

TEST(EventFile, FilesOfTheSameSecondDoNotMeet) {
  const TemporaryFolder folder;
  const EventFile first(folder.path(), 5.0, -1), second(folder.path(), 5.0, -1);
  EXPECT_LT(first.path(), second.path());
  EXPECT_THAT(message_of<Error>([&] { EventFile file(folder / "missing", 5.0, -1); }),
              HasSubstr("No such file or directory"));
}

}  // namespace
}  // namespace longstride
