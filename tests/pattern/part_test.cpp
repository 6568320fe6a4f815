#include "longstride/pattern/part.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

// The pairs that a plan's tiles hold, by rows or by columns.
std::vector<bool> pairs_of(const Plan& plan, bool by_columns) {
  std::vector<bool> pairs(static_cast<size_t>(plan.n * plan.n));
  for (const Pass& pass : plan.passes) {
    const TileGrid &own = by_columns ? pass.keys : pass.queries,
                   &other = by_columns ? pass.queries : pass.keys;
    for (int64_t tile = 0; tile < own.count(); ++tile)
      for (const TileRun& run : (by_columns ? pass.columns : pass.rows).of(tile))
        for (int64_t visited = run.begin; visited < run.end; ++visited)
          for (int64_t i = own.begin(tile); i < own.begin(tile) + own.size(tile); ++i)
            for (int64_t j = other.begin(visited); j < other.begin(visited) + other.size(visited); ++j) {
              const int64_t q = by_columns ? j : i, k = by_columns ? i : j;
              if (!pass.allows_index(q, k)) continue;
              const size_t at =
                  static_cast<size_t>(pass.queries.order.position(q) * plan.n + pass.keys.order.position(k));
              EXPECT_FALSE(pairs[at]) << "twice";
              pairs[at] = true;
            }
  }
  return pairs;
}

// The parts of a sequence have every pair of the pattern once, and mark every key that they look at.
TEST(Part, PartsHaveEveryPairOnce) {
  const int64_t n = 128;
  for (const char* text :
       {"dense", "window:20", "block:16", "fixed:16,4", "strided:8", "stride:8", "dilated:4,4"})
    for (const int64_t parts : {1, 2, 4}) {
      SCOPED_TRACE(std::string(text) + ", parts " + std::to_string(parts));
      const Schedule schedule = parse_schedule(text);
      for (const LayerPattern& layer : schedule.cycle) {
        const Plan whole = make_plan(layer.for_head(0, 2), n, 2, 2);
        std::vector<int> count(static_cast<size_t>(n * n));
        for (int64_t part = 0; part < parts; ++part) {
          const auto ranges = positions_of_part(n, parts, part);
          const Plan plan = plan_of_queries(whole, ranges);
          std::vector<bool> keys(static_cast<size_t>(n));
          mark_keys(plan, keys);
          const std::vector<bool> rows = pairs_of(plan, false);
          EXPECT_EQ(rows, pairs_of(plan, true));
          for (int64_t q = 0; q < n; ++q)
            for (int64_t k = 0; k < n; ++k) {
              const auto at = static_cast<size_t>(q * n + k);
              if (!rows[at]) continue;
              ++count[at];
              EXPECT_TRUE((q >= ranges[0].begin && q < ranges[0].end) ||
                          (q >= ranges[1].begin && q < ranges[1].end));
              EXPECT_TRUE(keys[static_cast<size_t>(k)]);
            }
        }
        for (int64_t q = 0; q < n; ++q)
          for (int64_t k = 0; k < n; ++k)
            EXPECT_EQ(count[static_cast<size_t>(q * n + k)], whole.pattern.allows(q, k) ? 1 : 0)
                << q << " " << k;
      }
    }
}

TEST(Part, WorkIsShared) {
  const Plan whole = make_plan(parse_schedule("dense").cycle[0].for_head(0, 1), 4096, 64, 64);
  for (int64_t part = 0; part < 4; ++part) {
    const Plan plan = plan_of_queries(whole, positions_of_part(4096, 4, part));
    EXPECT_NEAR(static_cast<double>(plan.pairs) / static_cast<double>(whole.pairs), 0.25, 0.01);
  }
}

TEST(Part, WhatCannotBeCutIsToldOf) {
  EXPECT_THROW(positions_of_part(100, 3, 0), Error);
  const Plan whole = make_plan(parse_schedule("stride:64").cycle[0].for_head(0, 1), 4096, 64, 64);
  EXPECT_THROW(plan_of_queries(whole, positions_of_part(4096, 2, 0)), Error);
}

}  // namespace
}  // namespace longstride
