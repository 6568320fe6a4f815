// Attention. Compares the fast path with the definition (verify/check_attention.cpp), and the definition
// with lists and derivatives that are independent of it. Also checks what must be exact.
#include "longstride/ops/attention.h"

#include <cmath>
#include <complex>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "longstride/base/rng.h"
#include "longstride/ops/cpu/attention_tile.h"
#include "longstride/ops/reference/attention.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/layer_cache.h"

#include "tests/ops/attention_problem.h"

namespace longstride {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

template <class T, int Rank>
View<T, Rank> view_of(std::vector<T>& data, std::initializer_list<int64_t> shape) {
  View<T, Rank> view;
  view.data = data.data();
  std::copy(shape.begin(), shape.end(), view.shape);
  view.stride[Rank - 1] = 1;
  for (int axis = Rank - 1; axis > 0; --axis) view.stride[axis - 1] = view.stride[axis] * view.shape[axis];
  return view;
}

void expect_passed(const std::vector<verify::Check>& checks) {
  EXPECT_GT(checks.size(), 100u);
  for (const verify::Check& check : checks)
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

// ---- the definition ----

TEST(AttentionReference, IsTheMeanOfTheAllowedValuesWhereAllScoresAreEqual) {
  const std::map<std::string, std::vector<std::vector<int>>> keys_of_queries = {
      {"stride:3", {{0}, {1}, {2}, {0, 3}, {1, 4}, {2, 5}, {0, 3, 6}}},
      {"fixed:3,1", {{0}, {0, 1}, {0, 1, 2}, {2, 3}, {2, 3, 4}, {2, 3, 4, 5}, {2, 5, 6}}},
      {"previous-row:3", {{}, {}, {}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {3, 4, 5}}},
  };
  for (const auto& [pattern, lists] : keys_of_queries) {
    const int64_t n = 7;
    std::vector<double> q(n, 0), k{3, 1, 4, 1, 5, 9, 2}, v{1, 2, 4, 8, 16, 32, 64}, o(n), lse(n);
    const auto rows = [&](std::vector<double>& data) { return view_of<double, 4>(data, {1, n, 1, 1}); };
    reference::attention_forward<double>(layer_of(pattern.c_str()), 1, rows(q), rows(k), rows(v), rows(o),
                                         view_of<double, 3>(lse, {1, 1, n}));
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (const int key : lists[i]) sum += v[key];
      const double count = static_cast<double>(lists[i].size());
      EXPECT_NEAR(o[i], count == 0 ? 0 : sum / count, 1e-12) << pattern << ", query " << i;
      EXPECT_DOUBLE_EQ(lse[i], std::log(count)) << pattern << ", query " << i;
    }
  }
}

TEST(AttentionReference, SoftmaxOfTwoScores) {
  std::vector<double> q{0, 2}, k{1, 3}, v{10, 20}, o(2), lse(2);
  const auto rows = [&](std::vector<double>& data) { return view_of<double, 4>(data, {1, 2, 1, 1}); };
  reference::attention_forward<double>(layer_of("dense"), 0.5, rows(q), rows(k), rows(v), rows(o),
                                       view_of<double, 3>(lse, {1, 1, 2}));
  EXPECT_DOUBLE_EQ(o[1], (10 * std::exp(1.0) + 20 * std::exp(3.0)) / (std::exp(1.0) + std::exp(3.0)));
  EXPECT_DOUBLE_EQ(lse[1], std::log(std::exp(1.0) + std::exp(3.0)));
}

// d loss / dx = Im loss(x + ih) / h to machine precision, for loss = sum of o * d_o.
TEST(AttentionReference, GradientsEqualComplexSteps) {
  using Complex = std::complex<double>;
  const int64_t n = 9, heads = 2, width = 3, v_width = 4;
  for (const char* pattern : {"dense", "fixed:4,2", "strided:3", "summary:4,1|window:2"}) {
    const LayerPattern layer = layer_of(pattern);
    const auto random = [&](uint32_t stream, int64_t columns) {
      std::vector<double> values(n * heads * columns);
      for (size_t i = 0; i < values.size(); ++i) values[i] = RandomStream{3, stream}.normal(i);
      return values;
    };
    std::vector<double> inputs[] = {random(0, width), random(1, width), random(2, v_width)};
    std::vector<double> d_o = random(3, v_width), o(d_o.size()), lse(n * heads);
    std::vector<double> gradients[] = {inputs[0], inputs[1], inputs[2]};
    const auto rows = [&](auto& data, int64_t columns) {
      return view_of<typename std::remove_reference_t<decltype(data)>::value_type, 4>(data,
                                                                                      {1, n, heads, columns});
    };
    const auto lse_view = view_of<double, 3>(lse, {1, heads, n});
    reference::attention_forward<double>(layer, 0.7, rows(inputs[0], width), rows(inputs[1], width),
                                         rows(inputs[2], v_width), rows(o, v_width), lse_view);
    reference::attention_backward<double>(layer, 0.7, rows(inputs[0], width), rows(inputs[1], width),
                                          rows(inputs[2], v_width), rows(o, v_width), lse_view,
                                          rows(d_o, v_width), rows(gradients[0], width),
                                          rows(gradients[1], width), rows(gradients[2], v_width));

    const double step = 1e-30;
    std::vector<Complex> perturbed[3], complex_o(o.size()), complex_lse(lse.size());
    for (int i = 0; i < 3; ++i) perturbed[i].assign(inputs[i].begin(), inputs[i].end());
    for (int input = 0; input < 3; ++input) {
      for (size_t element = 0; element < inputs[input].size(); ++element) {
        perturbed[input][element] += Complex(0, step);
        reference::attention_forward<Complex>(
            layer, 0.7, rows(perturbed[0], width), rows(perturbed[1], width), rows(perturbed[2], v_width),
            rows(complex_o, v_width), view_of<Complex, 3>(complex_lse, {1, heads, n}));
        perturbed[input][element] = inputs[input][element];
        double derivative = 0;
        for (size_t i = 0; i < o.size(); ++i) derivative += complex_o[i].imag() / step * d_o[i];
        EXPECT_NEAR(gradients[input][element], derivative, 1e-12)
            << pattern << ", input " << input << ", " << element;
      }
    }
  }
}

// ---- the fast path ----

TEST(Attention, AgreesWithTheDefinition) {
  expect_passed(verify::check_attention({}, verify::Effort::thorough));
}

// Few threads share out heads, many share out tiles: other loops, and another order of sums.
TEST(Attention, AgreesWithTheDefinitionForAnyNumberOfThreads) {
  for (const int count : {1, 3, 8}) {
    set_threads(count);
    expect_passed(verify::check_attention({}, verify::Effort::quick));
  }
  set_threads(0);
}

TEST(Attention, AgreesWithTheDefinitionOnEveryInstructionSet) {
  set_threads(1);
  // The lowest bit is the best target. Each round removes it.
  const int64_t all = hwy::SupportedTargets();
  for (int64_t targets = all & (all - 1); targets != 0; targets &= targets - 1) {
    hwy::GetChosenTarget().Update(targets);
    SCOPED_TRACE(hwy::TargetName(targets & -targets));
    expect_passed(verify::check_attention({}, verify::Effort::quick));
  }
  hwy::GetChosenTarget().Update(all);
  set_threads(0);
}

TEST(Attention, AQueryWithoutKeysGetsZeroAndPassesNoGradient) {
  Problem p(100);
  p.run("summary:40,2");  // keys 38, 39 and 78, 79
  for (int64_t i = 0; i < 38; ++i) {
    EXPECT_EQ(p.lse[i], -kInfinity);
    for (int64_t d = 0; d < 4; ++d) {
      EXPECT_EQ(p.o[i * 4 + d], 0);
      EXPECT_EQ(p.dq[i * 4 + d], 0);
    }
  }
  for (int64_t i = 0; i < 100; ++i) {
    const bool is_key = i % 40 >= 38;
    for (int64_t d = 0; d < 4; ++d) EXPECT_EQ(p.dv[i * 4 + d] != 0, is_key) << i;
    if (is_key) continue;
    EXPECT_EQ(p.dk[i * 4], 0) << i;
  }
}

TEST(Attention, APatternThatAllowsNothingGivesZeros) {
  Problem p(20);
  p.run("summary:40,2");
  EXPECT_THAT(p.o, testing::Each(0.0f));
  EXPECT_THAT(p.lse, testing::Each(-kInfinity));
  EXPECT_THAT(p.dq, testing::Each(0.0f));
  EXPECT_THAT(p.dk, testing::Each(0.0f));
  EXPECT_THAT(p.dv, testing::Each(0.0f));
}

TEST(Attention, AQueryWithOneKeyCopiesItsValue) {
  Problem p(70);
  p.run("window:1");
  EXPECT_EQ(p.o, p.v);
  EXPECT_EQ(p.dv, p.d_o);
}

TEST(Attention, ForwardGivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<float> o, lse;
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    Problem p(300, 2);
    p.run("strided:20");
    if (count == 1) o = p.o, lse = p.lse;
    EXPECT_EQ(p.o, o);
    EXPECT_EQ(p.lse, lse);
  }
  set_threads(0);
}

TEST(Attention, HugeScoresStayFinite) {
  for (const float gain : {1e4f, 1e8f, -1e8f}) {
    Problem p(130);
    for (float& value : p.q) value *= gain;
    p.run("strided:12");
    for (const auto* values : {&p.o, &p.lse, &p.dq, &p.dk, &p.dv})
      for (const float value : *values) ASSERT_TRUE(std::isfinite(value)) << gain;
  }
}

TEST(Attention, NaNDoesNotVanish) {
  Problem p(100);
  p.k[4 * 70] = kNaN;
  p.run("window:10");
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(std::isnan(p.o[4 * i]), i >= 70 && i < 80) << i;
    EXPECT_EQ(std::isnan(p.lse[i]), i >= 70 && i < 80) << i;
  }
}

TEST(Attention, NaNDoesNotVanishInBf16) {
  const int64_t n = 100;
  std::vector<Bf16> q(4 * n, Bf16(0.5f)), k = q, v = q, o(4 * n, Bf16(0.0f));
  k[4 * 70] = Bf16(kNaN);
  std::vector<float> lse(n);
  const auto rows = [&](std::vector<Bf16>& data) { return Tensor(data.data(), DType::bf16, {1, n, 1, 4}); };
  const AttentionPlan plan = plan_attention({}, layer_of("window:10"), 1, n);
  Arena scratch({}, attention_scratch_bytes({}, plan, DType::bf16, 1, 1, 4, 4));
  longstride::run({{}, &scratch}, AttentionForward{plan,
                                                   {rows(q), rows(k), rows(v), rows(o),
                                                    Tensor(lse.data(), DType::f32, {1, 1, n}), 0.5f}});
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(std::isnan(static_cast<float>(o[4 * i])), i >= 70 && i < 80) << i;
    EXPECT_EQ(std::isnan(lse[i]), i >= 70 && i < 80) << i;
  }
}

// ---- plans, masks and tiles ----

TEST(AttentionPlan, EqualHeadsShareAPlan) {
  const AttentionPlan plan = plan_attention({}, layer_of("window:4|stride:4"), 6, 50);
  EXPECT_EQ(plan.plans.size(), 2u);
  EXPECT_EQ(plan.plan_of_head, (std::vector<int>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(plan.pairs, 3 * (plan.plans[0].pairs + plan.plans[1].pairs));
  EXPECT_EQ(plan.n, 50);
  EXPECT_EQ(plan_attention({}, layer_of("spread-summary:8,2"), 8, 50).plans.size(), 4u);
}

TEST(TileMasks, TogetherAreWhatThePatternAllows) {
  for (const char* pattern :
       {"strided:24", "fixed:24,7", "stride:7+summary:8,2", "window:70+prefix:16", "dilated:4,3"}) {
    const int64_t n = 203;
    const AttentionPlan plan = plan_attention({}, layer_of(pattern), 1, n);
    std::map<std::pair<int64_t, int64_t>, int> by_rows, by_columns;
    for (size_t p = 0; p < plan.plans[0].passes.size(); ++p) {
      const Pass& pass = plan.plans[0].passes[p];
      const TileMasks& masks = plan.masks[0][p];
      // Calls visit(query tile, key tile, bits or null) along rows or columns.
      const auto add = [&](int64_t query_tile, int64_t key_tile, const TileMask* mask, bool columns,
                           auto& pairs) {
        const cpu::TilePositions queries(pass.queries, query_tile), keys(pass.keys, key_tile);
        for (int64_t q = 0; q < queries.count; ++q)
          for (int64_t k = 0; k < keys.count; ++k)
            if (!mask || (columns ? mask->columns[k] >> q & 1 : mask->rows[q] >> k & 1))
              ++pairs[{queries.position[q], keys.position[k]}];
      };
      for (int64_t tile = 0; tile < pass.queries.count(); ++tile) {
        const int32_t* id = masks.of_row(tile).data();
        for (const TileRun& run : pass.rows.of(tile))
          for (int32_t other = run.begin; other < run.end; ++other)
            add(tile, other, run.full ? nullptr : &masks.masks[*id++], false, by_rows);
        EXPECT_EQ(id, masks.of_row(tile).data() + masks.of_row(tile).size());
      }
      for (int64_t tile = 0; tile < pass.keys.count(); ++tile) {
        const int32_t* id = masks.of_column(tile).data();
        for (const TileRun& run : pass.columns.of(tile))
          for (int32_t other = run.begin; other < run.end; ++other)
            add(other, tile, run.full ? nullptr : &masks.masks[*id++], true, by_columns);
      }
    }
    const Pattern truth = layer_of(pattern).for_head(0, 1);
    for (int64_t q = 0; q < n; ++q)
      for (int64_t k = 0; k < n; ++k) {
        const std::pair<int64_t, int64_t> pair{q, k};
        ASSERT_EQ(by_rows[pair], truth.allows(q, k)) << pattern << ' ' << q << ' ' << k;
        ASSERT_EQ(by_columns[pair], truth.allows(q, k)) << pattern << ' ' << q << ' ' << k;
      }
  }
}

TEST(TileMasks, RepeatedTilesAreStoredOnce) {
  const AttentionPlan plan = plan_attention({}, layer_of("window:128"), 1, 64 * 40);
  EXPECT_LE(plan.masks[0][0].masks.size(), 3u);
  EXPECT_GT(plan.masks[0][0].row_ids.size(), 70u);
}

TEST(TilePositions, FollowTheOrder) {
  using Kind = TokenOrder::Kind;
  for (const TokenOrder& order :
       {TokenOrder{Kind::natural, 203, 1, 0, 0}, TokenOrder{Kind::lanes, 203, 7, 0, 0},
        TokenOrder{Kind::lanes, 203, 300, 0, 0}, TokenOrder{Kind::summary, 203, 9, 4, 0},
        TokenOrder{Kind::summary, 203, 9, 2, 3}}) {
    for (const int64_t tile : {5, 64}) {
      const TileGrid grid{order, tile};
      for (int64_t t = 0; t < grid.count(); ++t) {
        const cpu::TilePositions positions(grid, t);
        ASSERT_EQ(positions.count, grid.size(t));
        for (int64_t i = 0; i < positions.count; ++i) {
          const int64_t position = order.position(grid.begin(t) + i);
          ASSERT_EQ(positions.position[i], position < order.n ? position : -1);
        }
      }
    }
  }
}

// ---- one query ----

// One query's attention over (N, H, width) keys and values, written as sums in precision T.
template <class T>
std::vector<T> one_by_definition(const LayerPattern& layer, int64_t position, int64_t heads, int64_t width,
                                 float scale, const std::vector<float>& q, const std::vector<float>& k,
                                 const std::vector<float>& v) {
  std::vector<T> o(heads * width);
  for (int64_t h = 0; h < heads; ++h) {
    std::vector<T> scores;
    std::vector<int64_t> keys;
    for (int64_t key = 0; key <= position; ++key) {
      if (!layer.for_head(h, heads).allows(position, key)) continue;
      T score = 0;
      for (int64_t d = 0; d < width; ++d)
        score += static_cast<T>(q[h * width + d]) * static_cast<T>(k[(key * heads + h) * width + d]);
      keys.push_back(key), scores.push_back(static_cast<T>(scale) * score);
    }
    const T highest = *std::max_element(scores.begin(), scores.end());
    T sum = 0;
    for (const T score : scores) sum += std::exp(score - highest);
    for (size_t i = 0; i < keys.size(); ++i)
      for (int64_t d = 0; d < width; ++d)
        o[h * width + d] += std::exp(scores[i] - highest) / sum * v[(keys[i] * heads + h) * width + d];
  }
  return o;
}

TEST(AttentionOne, JoinsThePiecesOfManyKeys) {
  const int64_t n = 5000, heads = 2, width = 20;
  const float scale = 1.3f;
  const RandomStream random{5, 0};
  std::vector<float> q(heads * width), k(n * heads * width), v(k.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(random.normal(i));
  for (size_t i = 0; i < k.size(); ++i) {
    k[i] = static_cast<float>(Bf16(static_cast<float>(random.normal(1000 + i))));
    v[i] = static_cast<float>(Bf16(static_cast<float>(random.normal(1000000 + i))));
  }
  for (const char* pattern : {"dense", "window:3000", "stride:2", "fixed:8,3", "window:1500|dense"}) {
    const LayerPattern layer = layer_of(pattern);
    for (const auto& [keys, values] :
         {std::pair{DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::f32, DType::bf16}}) {
      const verify::LayerCache cache(layer, n, {1, heads, width, width}, {}, keys, values);
      int64_t stored = 0;
      for (const int64_t position : {int64_t{1023}, int64_t{1024}, int64_t{3071}, n - 1}) {
        const auto rows = [&](std::vector<float>& all) {
          return Tensor(all.data(), DType::f32, {n, heads, width}).rows(stored, position + 1);
        };
        longstride::run({}, StoreKeys{*cache, 0, stored, rows(k), rows(v)});
        stored = position + 1;
        const auto truth = one_by_definition<double>(layer, position, heads, width, scale, q, k, v);
        const auto naive = one_by_definition<float>(layer, position, heads, width, scale, q, k, v);
        std::vector<float> o(heads * width, kNaN);
        longstride::run({}, AttentionOne{*cache, std::vector<int64_t>{position},
                                         Tensor(q.data(), DType::f32, {1, heads, width}), scale,
                                         Tensor(o.data(), DType::f32, {1, heads, width})});
        // The scores reach 20, so their last bit is the floor.
        const verify::Check check = verify::compare(
            fmt::format("{} at {}, {} and {}", pattern, position, name_of(keys), name_of(values)), o, naive,
            truth, 3e-6);
        EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed "
                                    << check.allowed;
      }
    }
  }
}

}  // namespace
}  // namespace longstride
