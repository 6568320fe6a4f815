// The definition itself, against matrices written by hand: row q, column k, # where q may look at k.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/pattern/pattern.h"

namespace longstride {
namespace {

using Picture = std::vector<std::string>;

Picture picture_of(const char* text, int64_t n, int64_t head = 0) {
  const Pattern pattern = parse_pattern(text).for_head(head);
  Picture picture;
  for (int64_t q = 0; q < n; ++q) {
    picture.emplace_back();
    for (int64_t k = 0; k < n; ++k) picture.back() += pattern.allows(q, k) ? '#' : '.';
  }
  return picture;
}

TEST(Allows, Dense) { EXPECT_EQ(picture_of("dense", 4), (Picture{"#...", "##..", "###.", "####"})); }

TEST(Allows, Window) {
  EXPECT_EQ(picture_of("window:3", 8), (Picture{"#.......",  //
                                                "##......",  //
                                                "###.....",  //
                                                ".###....",  //
                                                "..###...",  //
                                                "...###..",  //
                                                "....###.",  //
                                                ".....###"}));
}

TEST(Allows, Block) {
  EXPECT_EQ(picture_of("block:3", 8), (Picture{"#.......",  //
                                               "##......",  //
                                               "###.....",  //
                                               "...#....",  //
                                               "...##...",  //
                                               "...###..",  //
                                               "......#.",  //
                                               "......##"}));
}

TEST(Allows, Stride) {
  EXPECT_EQ(picture_of("stride:3", 8), (Picture{"#.......",  //
                                                ".#......",  //
                                                "..#.....",  //
                                                "#..#....",  //
                                                ".#..#...",  //
                                                "..#..#..",  //
                                                "#..#..#.",  //
                                                ".#..#..#"}));
}

TEST(Allows, Summary) {
  EXPECT_EQ(picture_of("summary:4,1", 9), (Picture{".........",  //
                                                   ".........",  //
                                                   ".........",  //
                                                   "...#.....",  //
                                                   "...#.....",  //
                                                   "...#.....",  //
                                                   "...#.....",  //
                                                   "...#...#.",  //
                                                   "...#...#."}));
  EXPECT_EQ(picture_of("summary:5,2", 10), (Picture{"..........",  //
                                                    "..........",  //
                                                    "..........",  //
                                                    "...#......",  //
                                                    "...##.....",  //
                                                    "...##.....",  //
                                                    "...##.....",  //
                                                    "...##.....",  //
                                                    "...##...#.",  //
                                                    "...##...##"}));
  EXPECT_EQ(picture_of("summary:5,2,1", 10), (Picture{"..........",  //
                                                      ".#........",  //
                                                      ".##.......",  //
                                                      ".##.......",  //
                                                      ".##.......",  //
                                                      ".##.......",  //
                                                      ".##...#...",  //
                                                      ".##...##..",  //
                                                      ".##...##..",  //
                                                      ".##...##.."}));
}

TEST(Allows, SpreadSummaryDealsRunsToHeads) {
  EXPECT_EQ(picture_of("spread-summary:5,2", 10, 0), picture_of("summary:5,2", 10));
  EXPECT_EQ(picture_of("spread-summary:5,2", 10, 1), picture_of("summary:5,2,1", 10));
  EXPECT_EQ(picture_of("spread-summary:5,2", 10, 2), picture_of("summary:5,2", 10));  // 5/2 = 2 runs
}

TEST(Allows, Prefix) {
  EXPECT_EQ(picture_of("prefix:2", 5), (Picture{"#....", "##...", "##...", "##...", "##..."}));
}

TEST(Allows, PreviousRow) {
  EXPECT_EQ(picture_of("previous-row:3", 8), (Picture{"........",  //
                                                      "........",  //
                                                      "........",  //
                                                      "###.....",  //
                                                      "###.....",  //
                                                      "###.....",  //
                                                      "...###..",  //
                                                      "...###.."}));
}

TEST(Allows, Dilated) {
  EXPECT_EQ(picture_of("dilated:3,2", 8), (Picture{"#.......",  //
                                                   ".#......",  //
                                                   "#.#.....",  //
                                                   ".#.#....",  //
                                                   "#.#.#...",  //
                                                   ".#.#.#..",  //
                                                   "..#.#.#.",  //
                                                   "...#.#.#"}));
}

TEST(Allows, PaperPatterns) {
  EXPECT_EQ(picture_of("strided:3", 9), (Picture{"#........",  //
                                                 "##.......",  //
                                                 "###......",  //
                                                 "####.....",  //
                                                 ".####....",  //
                                                 "..####...",  //
                                                 "#..####..",  //
                                                 ".#..####.",  //
                                                 "..#..####"}));
  EXPECT_EQ(picture_of("fixed:4,1", 10), (Picture{"#.........",  //
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
