// Compares lists of visits with allows. They are read as a kernel reads them: by tiles, masks and places.
#include "longstride/pattern/visits.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

struct Listed {
  explicit Listed(const Plan& plan) {
    std::vector<TileMasks> of_passes;
    for (const Pass& pass : plan.passes) of_passes.push_back(make_tile_masks(pass));
    visits = list_visits(plan, of_passes, masks);
  }
  VisitMasks masks;
  PlanVisits visits;
};

// Adds the pairs of one half of a pair of tiles with one visited tile: (position of the owner, position of
// the visited).
void see(const TilePlace& own, const TilePlace& other, int mask, bool rows_are_queries,
         const VisitMasks& masks, std::vector<std::pair<int64_t, int64_t>>& seen) {
  for (int i = 0; i < kMaskTile; ++i)
    for (int j = 0; j < kMaskTile; ++j) {
      if (mask != kFull) {
        const TileMask& m = masks.all()[static_cast<size_t>(mask)];
        if ((((rows_are_queries ? m.rows : m.columns)[static_cast<size_t>(i)] >> j) & 1) == 0) continue;
      }
      const int64_t a = own.position(i), b = other.position(j);
      seen.emplace_back(rows_are_queries ? a : b, rows_are_queries ? b : a);
    }
}

// All (query, key) pairs of some sweeps, sorted. A pair that is visited twice appears twice.
std::vector<std::pair<int64_t, int64_t>> pairs_of(const std::vector<VisitSweep>& sweeps,
                                                  bool rows_are_queries, const VisitMasks& masks) {
  std::vector<std::pair<int64_t, int64_t>> seen;
  for (const VisitSweep& sweep : sweeps) {
    const CompactOrder rows(sweep.rows);
    std::vector<CompactOrder> others;
    for (const TileGrid& grid : sweep.others) others.emplace_back(grid);
    for (int pair = 0; pair < sweep.pairs; ++pair) {
      int visits = 0;
      for (int r = sweep.offsets[pair]; r < sweep.offsets[pair + 1]; ++r) {
        const VisitRun& run = sweep.runs[static_cast<size_t>(r)];
        EXPECT_LT(run.begin, run.end);
        visits += run.end - run.begin;
        for (int tile = run.begin; tile < run.end; ++tile)
          for (int half = 0; half < 2; ++half)
            if (run.mask[half] != kAbsent)
              see(rows.place(2 * pair + half), others[static_cast<size_t>(run.pass)].place(tile),
                  run.mask[half], rows_are_queries, masks, seen);
      }
      EXPECT_EQ(visits, sweep.visits[static_cast<size_t>(pair)]);
    }
  }
  std::sort(seen.begin(), seen.end());
  return seen;
}

std::vector<std::pair<int64_t, int64_t>> allowed_pairs(const Pattern& pattern, int64_t n) {
  std::vector<std::pair<int64_t, int64_t>> allowed;
  for (int64_t q = 0; q < n; ++q)
    for (int64_t k = 0; k < n; ++k)
      if (pattern.allows(q, k)) allowed.emplace_back(q, k);
  return allowed;
}

TEST(Visits, HoldEachAllowedPairOnce) {
  std::vector<const char*> patterns = terms::examples();
  patterns.insert(patterns.end(), {"window:5+prefix:3+block:16", "fixed:16,4", "strided:24", "fixed:128,32",
                                   "dilated:3,4+window:9", "summary:9,2,1+summary:70,30",
                                   "stride:2+summary:3,1+dilated:5,7", "stride:128+window:70"});
  for (const char* text : patterns)
    for (const int64_t n : {1, 63, 64, 65, 130, 517}) {
      SCOPED_TRACE(std::string(text) + ", n " + std::to_string(n));
      const Plan plan = make_plan(parse_pattern(text), n, kMaskTile, kMaskTile);
      const Listed listed(plan);
      const auto expected = allowed_pairs(plan.pattern, n);
      ASSERT_EQ(pairs_of(listed.visits.queries, true, listed.masks), expected);
      ASSERT_EQ(pairs_of(listed.visits.keys, false, listed.masks), expected);
    }
}

TEST(Visits, NothingIsVisitedWhereNothingIsAllowed) {
  const Plan plan = make_plan(parse_pattern("summary:64,4"), 40, kMaskTile, kMaskTile);
  ASSERT_TRUE(plan.passes.empty());
  const Listed listed(plan);
  ASSERT_EQ(listed.visits.queries.size(), 1u);
  EXPECT_TRUE(listed.visits.queries[0].covers);
  EXPECT_EQ(listed.visits.queries[0].pairs, 1);
  EXPECT_TRUE(pairs_of(listed.visits.queries, true, listed.masks).empty());
}

TEST(Visits, KnowWhatLetsKernelsTakeShorterWays) {
  const auto queries_of = [](const char* text, int64_t n) {
    return Listed(make_plan(parse_pattern(text), n, kMaskTile, kMaskTile)).visits.queries;
  };
  // The pairs of tiles of a block visit only themselves; those of a window do not.
  EXPECT_TRUE(queries_of("block:128", 1024)[0].closed);
  EXPECT_FALSE(queries_of("block:256", 1024)[0].closed);
  EXPECT_FALSE(queries_of("window:128", 1024)[0].closed);
  // Keys of summaries are gathered from their places; queries are all positions.
  const Listed fixed(make_plan(parse_pattern("summary:128,32"), 1024, kMaskTile, kMaskTile));
  EXPECT_TRUE(fixed.visits.queries[0].covers);
  EXPECT_FALSE(fixed.visits.keys[0].covers);
  // Every later pair of tiles looks at the summaries.
  EXPECT_GT(fixed.visits.queries[0].shared_tiles, 0);
  EXPECT_EQ(queries_of("window:64", 1024)[0].shared_tiles, 0);
}

TEST(Divisor, IsExact) {
  std::mt19937 random(3);
  for (const int d : {1, 2, 3, 7, 64, 65, 127, 1000, 65537, 0x3fffffff, 0x7fffffff}) {
    const Divisor divisor(d);
    for (const uint32_t n : {0u, 1u, 63u, 64u, 0x7fffffffu})
      EXPECT_EQ(divisor.divide(n), n / d) << n << '/' << d;
    for (int i = 0; i < 1000; ++i) {
      const uint32_t n = random() & 0x7fffffffu;
      ASSERT_EQ(divisor.divide(n), n / static_cast<uint32_t>(d)) << n << '/' << d;
    }
  }
}

}  // namespace
}  // namespace longstride
