// Compares the definition with matrices written by hand: row q, column k, # where q may look at k.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/text.h"
#include "longstride/pattern/pattern.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

using Drawn = std::vector<std::string>;

Drawn drawn_of(const char* text, int64_t n, int64_t head = 0) {
  const Pattern pattern = parse_pattern(text).for_head(head);
  Drawn picture;
  for (int64_t q = 0; q < n; ++q) {
    picture.emplace_back();
    for (int64_t k = 0; k < n; ++k) picture.back() += pattern.allows(q, k) ? '#' : '.';
  }
  return picture;
}

TEST(Allows, IsWhatEachKindDraws) {
  for (const terms::Entry& entry : terms::table())
    for (const terms::Drawing& drawing : entry.drawings) {
      const Drawn rows = split(drawing.rows, ' ');
      EXPECT_EQ(drawn_of(drawing.pattern, static_cast<int64_t>(rows.size())), rows) << drawing.pattern;
    }
}

TEST(Allows, SpreadSummaryDealsRunsToHeads) {
  EXPECT_EQ(drawn_of("spread-summary:5,2", 10, 0), drawn_of("summary:5,2", 10));
  EXPECT_EQ(drawn_of("spread-summary:5,2", 10, 1), drawn_of("summary:5,2,1", 10));
  EXPECT_EQ(drawn_of("spread-summary:5,2", 10, 2), drawn_of("summary:5,2", 10));  // 5/2 = 2 runs
}

TEST(Allows, PaperPatterns) {
  EXPECT_EQ(drawn_of("strided:3", 9), (Drawn{"#........",  //
                                             "##.......",  //
                                             "###......",  //
                                             "####.....",  //
                                             ".####....",  //
                                             "..####...",  //
                                             "#..####..",  //
                                             ".#..####.",  //
                                             "..#..####"}));
  EXPECT_EQ(drawn_of("fixed:4,1", 10), (Drawn{"#.........",  //
                                              "##........",  //
                                              "###.......",  //
                                              "####......",  //
                                              "...##.....",  //
                                              "...###....",  //
                                              "...####...",  //
                                              "...#####..",  //
                                              "...#...##.",  //
                                              "...#...###"}));
}

}  // namespace
}  // namespace longstride
