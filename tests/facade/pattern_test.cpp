// Patterns through longstride.h: what layers see, pictures, layers of a cycle.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <longstride/longstride.h>

#include "tests/support/temporary_folder.h"

namespace longstride {
namespace {

using testing::HasSubstr;

// The fewest layers of `pattern` through which every position sees every earlier one; 0: more than `most`.
int64_t layers_by_definition(const std::string& pattern, int64_t positions, int64_t most) {
  const Attention attention(pattern, positions, 1);
  std::vector<std::vector<bool>> seen(static_cast<size_t>(positions));
  for (size_t q = 0; q < seen.size(); ++q) seen[q].assign(q + 1, false), seen[q][q] = true;
  for (int64_t layer = 1; layer <= most; ++layer) {
    const auto before = seen;
    bool complete = true;
    for (size_t q = 0; q < seen.size(); ++q) {
      for (size_t k = 0; k <= q; ++k)
        if (attention.allows(0, static_cast<int64_t>(q), static_cast<int64_t>(k)))
          for (size_t i = 0; i <= k; ++i) seen[q][i] = seen[q][i] || before[k][i];
      for (const bool sees : seen[q]) complete &= sees;
    }
    if (complete) return layer;
  }
  return 0;
}

TEST(FacadePattern, ReachIsThatOfTheDefinition) {
  for (const char* pattern : {"dense", "window:5", "fixed:8,2", "strided:6", "stride:4"}) {
    const PatternReach reach = pattern_reach(pattern, 40, 12);
    const int64_t expected = layers_by_definition(pattern, 40, 12);
    EXPECT_EQ(reach.complete, expected > 0) << pattern;
    EXPECT_EQ(reach.layers, expected > 0 ? expected : 12) << pattern;
    EXPECT_TRUE(reach.exhaustive);
  }
  const PatternReach window = pattern_reach("window:5", 40, 2);
  EXPECT_FALSE(window.complete);
  EXPECT_EQ(window.blind_query, 39);
  EXPECT_EQ(window.blind_first, 0);
  EXPECT_EQ(window.blind_last, 30);
  EXPECT_EQ(window.blind_count, 31);
  EXPECT_THAT(window.text, HasSubstr("position 39 cannot see"));
  EXPECT_EQ(pattern_reach("window:8|stride:8", 64, 4).layers, 2);
  EXPECT_EQ(pattern_reach("stride:8,window:8", 64, 4).layers, 2);
}

TEST(FacadePattern, IsDrawn) {
  const std::string svg = pattern_svg("window:4|stride:4", 16, 2, 64);
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_THAT(svg, HasSubstr(">window:4</text>"));
  EXPECT_THAT(svg, HasSubstr(">stride:4</text>"));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(pattern_svg("window:4", 16), pattern_svg("window:5", 16));
}

TEST(FacadePattern, NamesTheLayersOfACycle) {
  EXPECT_EQ(pattern_layers("stride:8,window:8*2,fixed:8,2"),
            (std::vector<std::string>{"stride:8", "window:8", "window:8", pattern_layers("fixed:8,2")[0]}));
  for (const std::string& layer : pattern_layers("strided:8,window:4|stride:4")) Attention(layer, 8, 2);
}

TEST(FacadePattern, RefusesWhatCannotBe) {
  EXPECT_THAT(message_of<Error>([] { pattern_reach("fixd:8", 8, 1); }), HasSubstr("\n  fixd:8\n  ^^^^"));
  EXPECT_THAT(message_of<Error>([] { pattern_reach("dense", 0, 1); }), HasSubstr("at least 1"));
  EXPECT_THAT(message_of<Error>([] { pattern_reach("dense", 8, int64_t{1} << 40); }), HasSubstr("can be"));
  EXPECT_THAT(message_of<Error>([] { pattern_reach("dense|dense|window:4", 8, 1, 2); }),
              HasSubstr("cannot share"));
  EXPECT_THAT(message_of<Error>([] { pattern_svg("dense", 8, 1, 2); }), HasSubstr("16 to 16384 pixels"));
  EXPECT_THAT(message_of<Error>([] { pattern_svg("dense", 8, -1); }), HasSubstr("heads"));
  EXPECT_THAT(message_of<Error>([] { pattern_layers("dense:"); }), HasSubstr("dense:"));
}

}  // namespace
}  // namespace longstride
