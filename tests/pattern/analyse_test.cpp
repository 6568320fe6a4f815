// Compares reach with products of boolean matrices, which come from Pattern::allows.
#include "longstride/pattern/analyse.h"

#include <chrono>
#include <vector>

#include <gtest/gtest.h>

#include "longstride/base/check.h"
#include "longstride/pattern/terms/table.h"

namespace longstride {
namespace {

using Matrix = std::vector<std::vector<bool>>;  // [q][k]

Matrix one_layer(const LayerPattern& layer, int64_t heads, int64_t n) {
  Matrix sees(static_cast<size_t>(n), std::vector<bool>(static_cast<size_t>(n)));
  for (int64_t q = 0; q < n; ++q)
    for (int64_t k = 0; k <= q; ++k) {
      bool any = q == k;  // the residual connection
      for (int64_t head = 0; head < heads; ++head) any = any || layer.for_head(head, heads).allows(q, k);
      sees[static_cast<size_t>(q)][static_cast<size_t>(k)] = any;
    }
  return sees;
}

Matrix product(const Matrix& upper, const Matrix& lower) {
  const size_t n = upper.size();
  Matrix result(n, std::vector<bool>(n));
  for (size_t q = 0; q < n; ++q)
    for (size_t s = 0; s <= q; ++s)
      if (upper[q][s])
        for (size_t k = 0; k <= s; ++k)
          if (lower[s][k]) result[q][k] = true;
  return result;
}

void expect_reach(const char* text, int64_t layers, int64_t heads, int64_t n) {
  SCOPED_TRACE(fmt::format("{} layers={} heads={} n={}", text, layers, heads, n));
  const Schedule schedule = parse_schedule(text);
  Matrix sees = one_layer(schedule.layer(0), heads, n);
  int64_t complete_after = 0, worst_count = 0, worst_query = -1, first = -1, last = -1;
  for (int64_t layer = 1; layer <= layers; ++layer) {
    if (layer > 1) sees = product(one_layer(schedule.layer(layer - 1), heads, n), sees);
    worst_count = 0;
    for (int64_t q = 0; q < n; ++q) {
      int64_t count = 0, q_first = -1, q_last = -1;
      for (int64_t k = 0; k <= q; ++k)
        if (!sees[static_cast<size_t>(q)][static_cast<size_t>(k)]) {
          if (count++ == 0) q_first = k;
          q_last = k;
        }
      if (count > 0 && count >= worst_count)
        worst_count = count, worst_query = q, first = q_first, last = q_last;
    }
    if (worst_count == 0) {
      complete_after = layer;
      break;
    }
  }
  const Reach reach = analyse_reach(schedule, layers, heads, n);
  EXPECT_TRUE(reach.exhaustive);
  EXPECT_EQ(reach.complete, complete_after > 0);
  EXPECT_EQ(reach.layers, complete_after > 0 ? complete_after : layers);
  EXPECT_EQ(reach.blind_count, worst_count);
  if (worst_count == 0) return;
  EXPECT_EQ(reach.blind_query, worst_query);
  EXPECT_EQ(reach.blind_first, first);
  EXPECT_EQ(reach.blind_last, last);
}

TEST(Reach, AgreesWithMatrixProducts) {
  std::vector<const char*> schedules = terms::examples();
  schedules.insert(
      schedules.end(),
      {"strided:6", "fixed:8,2", "fixed:9,1", "fixed:8,8", "stride:6,window:6*3", "window:6*2,stride:6",
       "block:8,summary:8,2", "summary:8,2,block:8", "window:5|stride:5", "spread-fixed:8,2",
       "previous-row:6+block:6", "previous-row:6,stride:6", "dilated:3,4,window:4", "prefix:3+window:5",
       "window:3,stride:3,stride:9", "dilated:2,5|summary:7,2"});
  for (const char* text : schedules)
    for (const int64_t n : {1, 2, 7, 30, 61})
      for (const int64_t layers : {1, 2, 3, 5}) expect_reach(text, layers, 4, n);
  expect_reach("window:20,stride:20", 4, 2, 600);  // more keys than are followed at a time
  expect_reach("fixed:24,3", 2, 2, 600);
  expect_reach("window:100", 4, 2, 600);
}

// Beyond the exhaustive length the sets run the other way. The results can be worked out by hand.
TEST(Reach, SamplesLongSequences) {
  const Reach strided = analyse_reach(parse_schedule("strided:256"), 8, 2, 65536);
  EXPECT_TRUE(strided.complete);
  EXPECT_FALSE(strided.exhaustive);
  EXPECT_EQ(strided.layers, 2);
  // Layers that carry 10,000 positions each: 7 of them span 70,000.
  const Reach local = analyse_reach(parse_schedule("window:10001"), 64, 2, 65536);
  EXPECT_TRUE(local.complete);
  EXPECT_EQ(local.layers, 7);
  const Reach short_sighted = analyse_reach(parse_schedule("window:101,block:1"), 5, 2, 65536);
  EXPECT_FALSE(short_sighted.complete);
  EXPECT_EQ(short_sighted.layers, 5);
  EXPECT_EQ(short_sighted.blind_query, 65535);
  EXPECT_EQ(short_sighted.blind_first, 0);
  EXPECT_EQ(short_sighted.blind_last, 65535 - 300 - 1);
  EXPECT_EQ(short_sighted.blind_count, 65535 - 300);
  // The row above at each step: row 15 of 16 reaches row 0 after 15 layers, but never its own row's
  // neighbours.
  const Reach rows = analyse_reach(parse_schedule("previous-row:4096"), 20, 1, 65536);
  EXPECT_FALSE(rows.complete);
  EXPECT_EQ(rows.blind_query, 65535);
  EXPECT_EQ(rows.blind_first, 61440);
  EXPECT_EQ(rows.blind_count, 4095);
  // The two extremes: a summary alone never shows what is before the run.
  const Reach summary = analyse_reach(parse_schedule("summary:1000,10"), 3, 1, 20000);
  EXPECT_EQ(summary.blind_query, 19999);
  EXPECT_EQ(summary.blind_count, 20000 - 200);
}

TEST(Reach, PaperSchedulesTakeTwoLayersAndLittleTime) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(analyse_reach(parse_schedule("fixed:128,32"), 30, 8, 12288).layers, 2);
  EXPECT_EQ(analyse_reach(parse_schedule("strided:128"), 48, 16, 12288).layers, 2);
  EXPECT_EQ(analyse_reach(parse_schedule("strided:96"), 128, 2, 3072).layers, 2);
  EXPECT_FALSE(analyse_reach(parse_schedule("window:128"), 12, 8, 12288).complete);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("seconds", fmt::format("{:.2f}", seconds));
}

TEST(Reach, DescribesItselfInOneLine) {
  EXPECT_EQ(describe(analyse_reach(parse_schedule("strided:8"), 6, 2, 64), 64),
            "every position sees every earlier one within 2 layers");
  EXPECT_EQ(describe(analyse_reach(parse_schedule("dense"), 6, 2, 64), 64),
            "every position sees every earlier one within 1 layer");
  EXPECT_EQ(describe(analyse_reach(parse_schedule("strided:256"), 2, 1, 65536), 65536),
            "each of 64 sampled positions sees every earlier one within 2 layers");
  EXPECT_EQ(describe(analyse_reach(parse_schedule("window:128"), 12, 8, 12288), 12288),
            "within all 12 layers, position 12287 cannot see 10763 earlier positions (0..10762)");
  EXPECT_EQ(describe(analyse_reach(parse_schedule("window:3"), 1, 1, 4), 4),
            "within 1 layer, position 3 cannot see position 0");
  EXPECT_EQ(describe(analyse_reach(parse_schedule("stride:2"), 3, 1, 8), 8),
            "within all 3 layers, position 7 cannot see 4 earlier positions (among 0..6)");
}

TEST(Reach, RefusesWhatCannotBe) {
  EXPECT_THROW(analyse_reach(parse_schedule("dense"), 0, 1, 8), Error);
  EXPECT_THROW(analyse_reach(parse_schedule("dense"), 1, 1, 0), Error);
  EXPECT_THROW(analyse_reach(parse_schedule("dense|window:4"), 1, 3, 8), Error);
}

TEST(MeanKeys, PapersFigures) {
  const auto mean = [](const char* text, int64_t heads) {
    return mean_keys(parse_schedule(text).cycle[0], heads, 12288);
  };
  EXPECT_NEAR(mean("dense", 1), 6144.5, 1e-9);
  EXPECT_NEAR(mean("window:128", 8), 128 - 127 * 128 / 2.0 / 12288, 1e-9);
  EXPECT_NEAR(mean("stride:128", 8), 48.5, 1e-9);
  EXPECT_NEAR(mean("fixed:128,32", 8), 64.5 + 1520, 1e-9);
  EXPECT_NEAR(mean("dense|stride:128", 8), (6144.5 + 48.5) / 2, 1e-9);
}

TEST(ReceptiveFields, AreWhatAllowsGivesLayerByLayer) {
  for (const char* text : {"stride:4,window:3", "window:2", "fixed:8,2", "window:4|stride:4", "dense"}) {
    const Schedule schedule = parse_schedule(text);
    const int64_t n = 37, layers = 4, heads = 2;
    const ReceptiveFields fields = receptive_fields(schedule, layers, heads, n);
    ASSERT_EQ(fields.positions.size(), static_cast<size_t>(n));
    std::vector<std::vector<bool>> seen(n, std::vector<bool>(n));
    for (int64_t q = 0; q < n; ++q) seen[q][q] = true;
    for (size_t depth = 0; depth < fields.depth.size(); ++depth) {
      auto next = seen;
      for (int64_t q = 0; q < n; ++q)
        for (int64_t k = 0; k <= q; ++k)
          for (int64_t head = 0; head < heads; ++head)
            if (schedule.layer(static_cast<int64_t>(depth)).for_head(head, heads).allows(q, k))
              for (int64_t j = 0; j < n; ++j) next[q][j] = next[q][j] || seen[k][j];
      seen = next;
      for (int64_t q = 0; q < n; ++q)
        for (int64_t k = 0; k < n; ++k)
          EXPECT_EQ(fields.depth[depth][q * n + k], seen[q][k]) << text << q << k;
    }
    const Reach reach = analyse_reach(schedule, layers, heads, n);
    EXPECT_EQ(static_cast<int64_t>(fields.depth.size()), reach.layers) << text;
  }
  // A sample of a long sequence.
  const ReceptiveFields sample = receptive_fields(parse_schedule("strided:128"), 4, 1, 16384);
  EXPECT_EQ(sample.positions.size(), 512u);
  EXPECT_EQ(sample.depth.size(), 2u);
}

}  // namespace
}  // namespace longstride
