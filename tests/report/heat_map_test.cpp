#include "longstride/report/heat_map.h"

#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/report/text_sink.h"

namespace longstride {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Scored {
  Scored(const std::string& text, std::vector<float> of_bits)
      : bytes(text.begin(), text.end()), bits(std::move(of_bits)), entropy(bits.size(), 1.5f) {}
  ScoredBytes view() const { return {bytes, bits, entropy}; }
  std::vector<uint8_t> bytes;
  std::vector<float> bits, entropy;
};

std::string map_of(const Scored& scored, const ImageShape& shape = {}) {
  TextSink sink;
  write_heat_map(sink, scored.view(), shape, "a<b");
  return sink.text;
}

TEST(HeatMap, TheTableHasEveryByte) {
  TextSink sink;
  write_bits_table(sink, Scored("a\n", {0.5f, 8}).view());
  EXPECT_EQ(sink.text, "offset,byte,bits,entropy\n0,97,0.5000,1.5000\n1,10,8.0000,1.5000\n");
}

TEST(HeatMap, CharactersAreWholeAndEscaped) {
  // The two bytes of an umlaut have three bits together.
  const std::string page =
      map_of(Scored("<\xc3\xa4\xff", {0.1f, 1, 2, std::numeric_limits<float>::infinity()}));
  EXPECT_THAT(page, HasSubstr("<span class=\"h0\">&lt;</span><span class=\"h4\">\xc3\xa4</span><span "
                              "class=\"h9\">\\xff</span></pre>"));
  EXPECT_THAT(page, HasSubstr("<h1>a&lt;b</h1>"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
}

TEST(HeatMap, PicturesStandBesideTheirBits) {
  const std::string page = map_of(Scored(std::string(24, 'x'), std::vector<float>(24, 4)), {2, 2, 3});
  EXPECT_THAT(page, HasSubstr("alt=\"picture 1, 4.000 bits a byte\""));
  EXPECT_THAT(page, Not(HasSubstr("picture 2")));
}

TEST(HeatMap, MuchTextIsCut) {
  const std::string page = map_of(Scored(std::string(3 << 20, 'x'), std::vector<float>(3 << 20, 1)));
  EXPECT_THAT(page, HasSubstr("the first 1048576 are shown"));
  EXPECT_LT(page.size(), (2u << 20));
}

}  // namespace
}  // namespace longstride
