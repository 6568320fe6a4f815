// WAV files of mu-law samples.
#include "longstride/data/mulaw_wav.h"

#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/base/check.h"

#include "tests/data/mulaw_file.h"
#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;

std::span<const uint8_t> viewed(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(MulawWav, RanksAreTheOrderOfAmplitudes) {
  std::set<int> ranks;
  for (int sample = 0; sample < 256; ++sample) {
    const uint8_t rank = rank_of_mulaw(static_cast<uint8_t>(sample));
    EXPECT_EQ(mulaw_of_rank(rank), sample);
    ranks.insert(rank);
  }
  EXPECT_EQ(ranks.size(), 256u);
  EXPECT_EQ(rank_of_mulaw(0x00), 0);    // loudest negative
  EXPECT_EQ(rank_of_mulaw(0x7F), 127);  // negative zero
  EXPECT_EQ(rank_of_mulaw(0xFF), 128);  // zero
  EXPECT_EQ(rank_of_mulaw(0x80), 255);  // loudest positive
}

TEST(MulawWav, FindsTheSamples) {
  const std::string samples(101, '\x55');
  const std::string file = mulaw_file(samples, 12000);
  const WavSamples found = find_mulaw_samples(viewed(file), 12000, "a.wav");
  EXPECT_EQ(file.substr(found.begin, found.end - found.begin), samples);
  EXPECT_LT(found.end, std::ssize(file));
  const std::string none = mulaw_file("", 12000);
  const WavSamples empty = find_mulaw_samples(viewed(none), 12000, "a.wav");
  EXPECT_EQ(empty.begin, empty.end);
}

TEST(MulawWav, AnExtensibleHeaderNamesTheFormatFurtherOn) {
  const std::string samples(100, '\x55');
  std::string file = mulaw_file(samples, 12000);
  // 22 bytes more: their number, valid bits, speakers, and a name that begins with the format.
  const std::string more = "\x16\0\x08\0\x04\0\0\0\x07\0"s + std::string(14, '\0');
  file.replace(16, 4, "\x28\0\0\0"s), file.replace(20, 2, "\xFE\xFF"s), file.insert(36, more);
  const WavSamples found = find_mulaw_samples(viewed(file), 12000, "a.wav");
  EXPECT_EQ(file.substr(found.begin, found.end - found.begin), samples);
}

TEST(MulawWav, SizesLeftOpenMeanAllThatFollows) {
  for (const std::string& size : {std::string(4, '\0'), "\x00\xF0\xFF\x7F"s, std::string(4, '\xFF')}) {
    std::string file = mulaw_file(std::string(100, '\x55'), 12000);
    file.replace(40, 4, size);
    const WavSamples found = find_mulaw_samples(viewed(file), 12000, "a.wav");
    EXPECT_EQ(found.begin, 44);
    EXPECT_EQ(found.end, std::ssize(file));
  }
}

TEST(MulawWav, RefusesOthersAndSaysWhatConverts) {
  const auto refusal = [](const std::string& file, int64_t rate) {
    return message_of<Error>([&] { find_mulaw_samples(viewed(file), rate, "a.wav"); });
  };
  const std::string file = mulaw_file("abc", 12000);
  EXPECT_THAT(refusal(file, 8000), AllOf(HasSubstr("a.wav has 12000 Hz, 1 channel, 8 bits, format 7"),
                                         HasSubstr("sox a.wav -r 8000 -c 1 -e mu-law -b 8")));
  EXPECT_THAT(refusal("text", 8000), HasSubstr("no WAV file"));
  std::string pcm = file;
  pcm[20] = 1;
  EXPECT_THAT(refusal(pcm, 12000), HasSubstr("format 1"));
  std::string stereo = file;
  stereo[22] = 2;
  EXPECT_THAT(refusal(stereo, 12000), HasSubstr("2 channels"));
  std::string renamed = file;
  EXPECT_THAT(refusal(renamed.replace(12, 4, "junk"), 12000),
              HasSubstr("its samples come before their format"));
  renamed = file;
  EXPECT_THAT(refusal(renamed.replace(36, 4, "junk"), 12000), HasSubstr("a WAV file without samples"));
  for (size_t size = 0; size < 44; ++size) EXPECT_NE(refusal(file.substr(0, size), 12000), "") << size;
}

}  // namespace
}  // namespace longstride
