// Compares plans with Pattern::allows, pair by pair, and tiles with a count of their pairs.
#include "longstride/pattern/plan.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "longstride/base/check.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

struct TileKey {
  int64_t query, key;
  auto operator<=>(const TileKey&) const = default;
};

// All tiles that lists name, with their full flags; fails on runs out of order.
std::map<TileKey, bool> expand(const TileLists& lists, int64_t count, int64_t other_count, bool transposed) {
  std::map<TileKey, bool> tiles;
  EXPECT_EQ(lists.offsets.size(), static_cast<size_t>(count + 1));
  for (int64_t t = 0; t < count; ++t) {
    int64_t last = 0;
    for (const TileRun& run : lists.of(t)) {
      EXPECT_GE(run.begin, last);
      EXPECT_LT(run.begin, run.end);
      EXPECT_LE(run.end, other_count);
      last = run.end;
      for (int64_t other = run.begin; other < run.end; ++other)
        tiles[transposed ? TileKey{other, t} : TileKey{t, other}] = run.full;
    }
  }
  return tiles;
}

// Checks everything that plan.h promises, for one pattern, length and tile size. Returns the fault, or "".
std::string fault(const Pattern& pattern, int64_t n, int64_t query_tile, int64_t key_tile) {
  const Plan plan = make_plan(pattern, n, query_tile, key_tile);
  std::vector<int> covered(static_cast<size_t>(n * n));
  for (const Pass& pass : plan.passes) {
    const auto rows = expand(pass.rows, pass.queries.count(), pass.keys.count(), false);
    const auto columns = expand(pass.columns, pass.keys.count(), pass.queries.count(), true);
    if (rows != columns) return "columns are not the transpose of rows";
    if (rows.empty()) return "an empty pass";
    for (int64_t tq = 0; tq < pass.queries.count(); ++tq)
      for (int64_t tk = 0; tk < pass.keys.count(); ++tk) {
        int64_t allowed = 0;
        const int64_t area = pass.queries.size(tq) * pass.keys.size(tk);
        for (int64_t i = pass.queries.begin(tq); i < pass.queries.begin(tq) + pass.queries.size(tq); ++i)
          for (int64_t j = pass.keys.begin(tk); j < pass.keys.begin(tk) + pass.keys.size(tk); ++j) {
            if (!pass.allows_index(i, j)) continue;
            ++allowed;
            const int64_t q = pass.queries.order.position(i), k = pass.keys.order.position(j);
            if (q >= n || k >= n || !pattern.allows(q, k))
              return fmt::format("pair {},{} is not allowed", q, k);
            ++covered[static_cast<size_t>(q * n + k)];
          }
        const auto tile = rows.find({tq, tk});
        if ((tile != rows.end()) != (allowed > 0))
          return fmt::format("tile {},{} with {} pairs is {}", tq, tk, allowed,
                             allowed > 0 ? "missing" : "listed");
        if (tile != rows.end() && tile->second != (allowed == area))
          return fmt::format("tile {},{} has {} of {} pairs, full = {}", tq, tk, allowed, area, tile->second);
      }
  }
  int64_t pairs = 0;
  std::vector<int64_t> keys{-7};
  for (int64_t q = 0; q < n; ++q) {
    keys_of(pattern, q, keys);
    if (std::set<int64_t>(keys.begin(), keys.end()).size() != keys.size()) return "keys_of names a key twice";
    std::sort(keys.begin(), keys.end());
    std::vector<int64_t> truth;
    for (int64_t k = 0; k < n; ++k) {
      const int allowed = pattern.allows(q, k) ? 1 : 0;
      if (covered[static_cast<size_t>(q * n + k)] != allowed)
        return fmt::format("pair {},{} is covered {} times, should be {}", q, k,
                           covered[static_cast<size_t>(q * n + k)], allowed);
      if (allowed) truth.push_back(k);
    }
    if (truth != keys) return fmt::format("keys_of({}) is wrong", q);
    pairs += static_cast<int64_t>(truth.size());
  }
  if (plan.pairs != pairs) return fmt::format("plan has {} pairs, truth is {}", plan.pairs, pairs);
  if (count_pairs(pattern, n) != pairs)
    return fmt::format("count_pairs gives {}, truth is {}", count_pairs(pattern, n), pairs);
  if (plan.n != n || !(plan.pattern == pattern)) return "the plan does not say what it is of";
  return "";
}

class PlanOf : public testing::TestWithParam<const char*> {};

TEST_P(PlanOf, AgreesWithAllowsPairByPair) {
  const Pattern pattern = parse_pattern(GetParam()).for_head(1);
  constexpr TileKey tiles[]{{1, 1}, {4, 4}, {3, 5}, {8, 2}, {16, 16}, {64, 64}};
  for (int64_t n = 1; n <= 70; n += n < 24 ? 1 : 7)
    for (const TileKey& tile : tiles)
      ASSERT_EQ(fault(pattern, n, tile.query, tile.key), "")
          << "n = " << n << " tiles " << tile.query << "x" << tile.key;
}

INSTANTIATE_TEST_SUITE_P(Terms, PlanOf, testing::ValuesIn(terms::examples()));

INSTANTIATE_TEST_SUITE_P(
    Unions, PlanOf,
    testing::Values("previous-row:1", "prefix:1", "stride:3", "strided:8", "strided:11", "fixed:16,4",
                    "fixed:9,9", "fixed:10,3", "spread-fixed:16,4", "summary:5,1,4", "stride:6+stride:4",
                    "stride:8+stride:4", "stride:5+summary:7,2", "stride:8+summary:4,1",
                    "stride:4+summary:8,3", "stride:6+summary:4,1", "summary:8,3+summary:6,2",
                    "summary:8,2,0+summary:8,2,2", "summary:9,2,1+summary:9,3,0",
                    "summary:9,3,0+summary:9,2,1", "window:8+dilated:3,4", "window:9+dilated:3,4",
                    "dilated:4,3+dilated:2,12", "dilated:5,3+dilated:2,12", "window:10+previous-row:5",
                    "window:9+previous-row:5", "previous-row:8+stride:8+block:8",
                    "window:4+prefix:3+dilated:3,5", "dilated:3,4+stride:8", "dilated:2,6+dilated:3,4",
                    "block:8+window:3+previous-row:5", "summary:6,1+stride:5+dilated:3,7+window:2",
                    "stride:2+stride:3+stride:5+summary:7,3+summary:4,1"));

// Each kind beside each other kind, in both orders, so that all containments and exclusions occur.
TEST(Plan, PairsOfAllKinds) {
  for (const char* one : terms::examples())
    for (const char* other : terms::examples()) {
      const Pattern pattern = parse_pattern(fmt::format("{}+{}", one, other)).for_head(1);
      for (const int64_t n : {13, 40}) ASSERT_EQ(fault(pattern, n, 4, 3), "") << one << '+' << other;
    }
}

TEST(Plan, PaperPatternsAtRealTileSizes) {
  for (const char* text : {"fixed:128,32", "strided:128", "window:128+prefix:16", "spread-fixed:128,32"})
    ASSERT_EQ(fault(parse_pattern(text).for_head(2), 700, 64, 64), "") << text;
}

TEST(PlanProperty, RandomPatternsLengthsAndTiles) {
  EXPECT_TRUE(rc::check("a plan covers each allowed pair once, in exact tiles", [] {
    const auto number = [](int64_t low, int64_t high) {
      return *rc::gen::resize(100, rc::gen::inRange(low, high));
    };
    Pattern pattern;
    for (int64_t terms = number(1, 5); terms > 0; --terms) {
      const terms::Entry& entry =
          terms::table()[static_cast<size_t>(number(0, static_cast<int64_t>(terms::table().size())))];
      Term term{entry.kind};
      for (const terms::Number& field : entry.numbers)
        term.*field.field = number(field.least, field.most == nullptr ? 25 : field.most(term) + 1);
      pattern.add(term);
    }
    for (int i = 0; i < 20; ++i) {
      const int64_t n = number(1, 60), query_tile = number(1, 20), key_tile = number(1, 20);
      const std::string wrong = fault(pattern, n, query_tile, key_tile);
      if (!wrong.empty())
        RC_FAIL(fmt::format("{} n={} tiles {}x{}: {}", to_string(pattern), n, query_tile, key_tile, wrong));
    }
  }));
}

// The cost that the paper's fixed pattern should have: one masked diagonal, else full tiles.
TEST(Plan, FixedIsMostlyFullTiles) {
  const Plan plan = make_plan(parse_pattern("fixed:128,32"), 12288, 64, 64);
  ASSERT_EQ(plan.passes.size(), 2u);
  const Pass& blocks = plan.passes[0];
  EXPECT_EQ(blocks.keys.order.kind, TokenOrder::Kind::natural);
  for (int64_t t = 0; t < blocks.queries.count(); ++t) {
    const auto diagonal = static_cast<int32_t>(t);
    const auto runs = blocks.rows.of(t);
    if (t % 2 == 0) {
      ASSERT_EQ(runs.size(), 1u);
      EXPECT_EQ(runs[0], (TileRun{diagonal, diagonal + 1, false}));
    } else {
      ASSERT_EQ(runs.size(), 2u);
      EXPECT_EQ(runs[0], (TileRun{diagonal - 1, diagonal, true}));
      EXPECT_EQ(runs[1], (TileRun{diagonal, diagonal + 1, false}));
    }
  }
  const Pass& summaries = plan.passes[1];
  EXPECT_EQ(summaries.keys.order.kind, TokenOrder::Kind::summary);
  EXPECT_EQ(summaries.keys.order.size(), 12288 / 128 * 32);
  for (int64_t t = 0; t < summaries.queries.count(); ++t) {
    const int64_t keys = t / 2 * 32;  // those of earlier blocks
    std::vector<TileRun> truth;
    if (keys >= 64) truth.push_back({0, static_cast<int32_t>(keys / 64), true});
    if (keys % 64 != 0)
      truth.push_back({static_cast<int32_t>(keys / 64), static_cast<int32_t>(keys / 64 + 1), false});
    const auto runs = summaries.rows.of(t);
    EXPECT_EQ(std::vector<TileRun>(runs.begin(), runs.end()), truth) << "query tile " << t;
  }
  EXPECT_NEAR(static_cast<double>(plan.pairs) / 12288, 64.5 + 1520,
              0.01);  // mean keys of a query, 32 * 95 / 2 = 1520
}

TEST(Plan, StridedLeavesOnlyTheDiagonalToMask) {
  const int64_t n = 65536;
  const Plan plan = make_plan(parse_pattern("strided:256"), n, 64, 64);
  ASSERT_EQ(plan.passes.size(), 2u);
  const Pass& columns = plan.passes[1];
  ASSERT_EQ(columns.keys.order.kind, TokenOrder::Kind::lanes);
  ASSERT_EQ(columns.queries.count(), 256 * 4);
  for (int64_t t = 0; t < columns.queries.count(); ++t) {
    const auto lane = static_cast<int32_t>(t / 4 * 4), self = static_cast<int32_t>(t);
    std::vector<TileRun> truth;
    if (self > lane) truth.push_back({lane, self, true});
    truth.push_back({self, self + 1, false});
    const auto runs = columns.rows.of(t);
    ASSERT_EQ(std::vector<TileRun>(runs.begin(), runs.end()), truth) << "query tile " << t;
  }
}

TEST(Plan, CoversSimpleUnionsInOnePass) {
  EXPECT_EQ(make_plan(parse_pattern("dense+stride:7+summary:9,2"), 100, 8, 8).passes.size(), 1u);
  EXPECT_EQ(make_plan(parse_pattern("stride:64+stride:128"), 1000, 8, 8).passes.size(), 1u);
  EXPECT_EQ(make_plan(parse_pattern("strided:128"), 100, 8, 8).passes.size(), 1u);  // the window sees all
  EXPECT_TRUE(
      make_plan(parse_pattern("summary:128,8"), 100, 8, 8).passes.empty());  // no position may look anywhere
}

TEST(Plan, RefusesWhatCannotBe) {
  EXPECT_THROW(make_plan(parse_pattern("dense"), 0, 8, 8), Error);
  EXPECT_THROW(make_plan(parse_pattern("dense"), 8, 0, 8), Error);
  EXPECT_THROW(make_plan(parse_pattern("dense"), 8, 8, -1), Error);
  EXPECT_THROW(make_plan(parse_pattern("dense"), int64_t{1} << 40, 8, 8), Error);
  EXPECT_THROW(count_pairs(parse_pattern("dense"), -1), Error);
  Pattern broken;
  broken.add({TermKind::stride, 0});
  EXPECT_THROW(make_plan(broken, 8, 8, 8), Error);
  Pattern overlong;
  overlong.add({TermKind::summary, 8, 3, 2});
  EXPECT_THROW(count_pairs(overlong, 8), Error);
}

// A million positions need closed forms. The expected values are sums written out by hand.
TEST(Plan, AMillionPositions) {
  const int64_t n = 1 << 20, l = 1024, blocks = n / l;
  const int64_t triangle = n * (n + 1) / 2, local = blocks * (l * (l + 1) / 2);
  const int64_t stride = l * (blocks * (blocks + 1) / 2);
  const int64_t window = n * l - l * (l - 1) / 2;
  const int64_t summaries = 32 * l * (blocks * (blocks - 1) / 2);
  const std::pair<const char*, int64_t> cases[]{{"dense", triangle},
                                                {"window:1024", window},
                                                {"block:1024", local},
                                                {"stride:1024", stride},
                                                {"strided:1024", window + stride - n},
                                                {"fixed:1024,32", local + summaries}};
  const auto seconds = [](auto duration) { return std::chrono::duration<double>(duration).count(); };
  for (const auto& [text, truth] : cases) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(count_pairs(parse_pattern(text), n), truth) << text;
    const auto counted = std::chrono::steady_clock::now();
    const Plan plan = make_plan(parse_pattern(text), n, 64, 64);
    const auto planned = std::chrono::steady_clock::now();
    EXPECT_EQ(plan.pairs, truth) << text;
    size_t bytes = 0;
    for (const Pass& pass : plan.passes)
      for (const TileLists* lists : {&pass.rows, &pass.columns})
        bytes += lists->offsets.capacity() * sizeof(int64_t) + lists->runs.capacity() * sizeof(TileRun);
    EXPECT_LT(bytes, 20u << 20) << text;
    RecordProperty(fmt::format("count_seconds_{}", text), fmt::format("{:.3f}", seconds(counted - start)));
    RecordProperty(fmt::format("plan_seconds_{}", text), fmt::format("{:.3f}", seconds(planned - counted)));
  }
}

// Keys that a later pass leaves out one by one, between most of those that it keeps.
TEST(Plan, UnrelatedWidthsAtRealLengths) {
  constexpr int64_t n = 65536;
  const auto pairs_of = [](const auto& sees_at_distance) {
    int64_t pairs = 0, keys = 0;
    for (int64_t distance = 0; distance < n; ++distance) pairs += keys += sees_at_distance(distance) ? 1 : 0;
    return pairs;
  };
  // Whether a summary keeps a key depends only on the key, so the same sum serves.
  const std::pair<const char*, int64_t> cases[]{
      {"summary:3,1+summary:2,1", pairs_of([](int64_t k) { return k % 3 == 2 || k % 2 == 1; })},
      {"stride:2+stride:3+window:5", pairs_of([](int64_t d) { return d % 2 == 0 || d % 3 == 0 || d < 5; })},
      {"dilated:1000,3+stride:7",
       pairs_of([](int64_t d) { return d % 7 == 0 || (d % 3 == 0 && d < 3000); })}};
  for (const auto& [text, truth] : cases) {
    const Pattern pattern = parse_pattern(text);
    EXPECT_EQ(count_pairs(pattern, n), truth) << text;
    EXPECT_EQ(make_plan(pattern, n, 64, 64).pairs, truth) << text;
  }
}

// Patterns whose keys would have to be left out one by one are refused at once, not after an hour.
TEST(Plan, RefusesWhatWouldTakeTooLongToPlan) {
  for (const char* text : {"summary:3,1+summary:2,1", "stride:2+stride:3+window:5"}) {
    const Pattern pattern = parse_pattern(text);
    EXPECT_THROW(make_plan(pattern, 1 << 20, 64, 64), Error) << text;
    EXPECT_THROW(count_pairs(pattern, 1 << 20), Error) << text;
  }
  // Patterns of models in use are not refused.
  for (const char* text : {"fixed:1024,16", "strided:1024", "window:256+stride:256+summary:256,8",
                           "dilated:32,1024+stride:1024", "summary:128,32+window:128+prefix:64"})
    EXPECT_GT(count_pairs(parse_pattern(text), 1 << 20), 0) << text;
}

}  // namespace
}  // namespace longstride
