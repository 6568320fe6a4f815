// The bytes that a sample goes on from, cut to what it can use.
#include "longstride/sample/prime.h"

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace longstride {
namespace {

std::vector<uint8_t> counted(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), 0);
  return bytes;
}

DataConfig data_of(const std::string& kind) {
  DataConfig data;
  data.kind = kind;
  data.sample_rate = 10;
  return data;
}

TEST(Prime, BeginningInBytes) {
  const DataConfig text = data_of("text");
  EXPECT_EQ(beginning_of_prime(counted(9), {}, text, {}), counted(9));
  EXPECT_EQ(beginning_of_prime(counted(9), {.fraction = 0.5}, text, {}), counted(5));
  EXPECT_EQ(beginning_of_prime(counted(9), {.whole_window = true}, text, {}), counted(5));
  EXPECT_EQ(beginning_of_prime(counted(9), {.fraction = 1, .whole_window = true}, text, {}), counted(9));
  EXPECT_EQ(beginning_of_prime(counted(9), {.fraction = 0.001}, text, {}), counted(1));
}

TEST(Prime, BeginningInSeconds) {
  const DataConfig audio = data_of("audio");
  EXPECT_EQ(beginning_of_prime(counted(40), {.seconds = 1.5}, audio, {}), counted(15));
  EXPECT_EQ(beginning_of_prime(counted(40), {.seconds = 5}, audio, {}), counted(40));
  EXPECT_EQ(beginning_of_prime(counted(40), {.seconds = 0.01}, audio, {}), counted(1));
  EXPECT_EQ(beginning_of_prime(counted(40), {.whole_window = true}, audio, {}), counted(20));
  EXPECT_EQ(beginning_of_prime(counted(40), {.seconds = 3, .whole_window = true}, audio, {}), counted(30));
  EXPECT_EQ(beginning_of_prime(counted(40), {.fraction = 0.5, .seconds = 3}, audio, {}), counted(20));
}

TEST(Prime, BeginningInWholeRows) {
  const DataConfig image = data_of("image");
  const ImageShape shape{4, 5, 3};
  EXPECT_EQ(beginning_of_prime(counted(60), {}, image, shape), counted(30));
  EXPECT_EQ(beginning_of_prime(counted(60), {.fraction = 0.3}, image, shape), counted(15));
  EXPECT_EQ(beginning_of_prime(counted(60), {.fraction = 1}, image, shape), counted(60));
}

TEST(Prime, EndOfOneThatIsTooLong) {
  const Windows windows{.context = 16, .hop = 4};
  std::vector<std::string> notes;
  const auto size = [&](size_t bytes, int64_t length) {
    const std::vector<uint8_t> all = counted(bytes);
    const std::vector<uint8_t> kept =
        end_of_prime(all, length, windows, [&](const std::string& line) { notes.push_back(line); });
    EXPECT_EQ(kept, std::vector<uint8_t>(all.end() - std::ssize(kept), all.end()));
    return kept.size();
  };
  EXPECT_EQ(size(9, 10), 9u);
  EXPECT_EQ(size(16, 17), 16u);
  EXPECT_TRUE(notes.empty());
  EXPECT_EQ(size(10, 10), 5u);
  EXPECT_EQ(size(17, 100), 12u);
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_EQ(notes[0], "the prime has 10 bytes, a sample 10: going on from its last 5");
  EXPECT_EQ(notes[1], "the prime has 17 bytes, the model's context 16: going on from its last 12");
  EXPECT_EQ(end_of_prime(counted(10), 10, windows).size(), 5u);
}

}  // namespace
}  // namespace longstride
