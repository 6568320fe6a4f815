#include "longstride/ops/query_key.h"

#include <cmath>
#include <numbers>

#include "longstride/ops/reference/query_key.h"
#include "longstride/verify/checks.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

TEST(QueryKey, AgreesWithTheReference) {
  expect_all_pass(verify::check_query_key({}, verify::Effort::thorough));
}

TEST(QueryKey, ReferenceGradientIsTheDerivative) {
  constexpr int64_t kWidth = 6;
  const std::vector<double> x = normal_doubles(1, kWidth), dy = normal_doubles(2, kWidth);
  const std::vector<double> cosines{0.6, 0.8, 1}, sines{0.8, -0.6, 0};
  const auto forward = [&](auto values) {
    using T = typename decltype(values)::value_type;
    reference::head_norm_forward(values.data(), kWidth, T(0.1), values.data());
    reference::rotate(values.data(), kWidth, cosines.data(), sines.data(), false);
    return values;
  };
  std::vector<double> y(kWidth), dx = dy;
  const double reciprocal = reference::head_norm_forward(x.data(), kWidth, 0.1, y.data());
  reference::rotate(dx.data(), kWidth, cosines.data(), sines.data(), true);
  reference::head_norm_backward(dx.data(), y.data(), reciprocal, kWidth, dx.data());
  expect_near_all(
      dx, complex_step_gradient([&](const auto& at) { return dot(forward(at), complexified(dy)); }, x),
      1e-13);
}

TEST(QueryKey, KnownValues) {
  // rms 5: (3, 7, 4, sqrt(26)) / 5. Pairs are (0, 2) and (1, 3); the first turns by a quarter.
  std::vector<float> x{3, 7, 4, std::sqrt(26.0f), 1, 0, 0, 0}, turn{0, 1, 1, 0}, reciprocal(2, NAN);
  const QueryKey t{matrix(x, 1, 8), 1, matrix(turn, 1, 4), matrix(reciprocal, 1, 2)};
  run({}, QueryKeyForward{t});
  EXPECT_THAT(x, testing::Pointwise(testing::FloatNear(1e-5f),
                                    {-0.8f, 1.4f, 0.6f, 1.0198039f, 0.0f, 0.0f, 2.0f, 0.0f}));
  EXPECT_THAT(reciprocal, testing::Pointwise(testing::FloatNear(1e-5f), {0.2f, 2.0f}));
}

// The purpose of the rotation: the product of a query and a key depends on how far apart they are, not on
// where.
TEST(QueryKey, ProductsKnowDistancesAlone) {
  constexpr int64_t kPositions = 40, kWidth = 8;
  std::vector<float> turn(kPositions * kWidth), x(kPositions * 2 * kWidth);
  for (int64_t i = 0; i < kPositions; ++i) {
    for (int64_t pair = 0; pair < kWidth / 2; ++pair) {
      const double angle = static_cast<double>(i) * std::pow(10.0, -static_cast<double>(pair) / 2);
      turn[i * kWidth + pair] = static_cast<float>(std::cos(angle));
      turn[i * kWidth + kWidth / 2 + pair] = static_cast<float>(std::sin(angle));
    }
    for (int64_t c = 0; c < 2 * kWidth; ++c) x[i * 2 * kWidth + c] = static_cast<float>((c * 7 + 3) % 5) - 2;
  }
  run({}, QueryKeyForward{{matrix(x, kPositions, 2 * kWidth), 1, matrix(turn, kPositions, kWidth), {}}});
  const auto product = [&](int64_t query, int64_t key) {
    float sum = 0;
    for (int64_t c = 0; c < kWidth; ++c) sum += x[query * 2 * kWidth + c] * x[key * 2 * kWidth + kWidth + c];
    return sum;
  };
  for (int64_t i = 12; i < kPositions; ++i) EXPECT_NEAR(product(i, i - 9), product(11, 2), 2e-5) << i;
  EXPECT_GT(std::abs(product(11, 2) - product(11, 3)), 0.01);
}

TEST(QueryKey, NanStaysInItsHead) {
  std::vector<float> x(2 * 4 * 6, 1.0f), reciprocal(2 * 4);
  x[13] = NAN;
  run({}, QueryKeyForward{{matrix(x, 2, 24), 2, {}, matrix(reciprocal, 2, 4)}});
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(std::isnan(x[i]), i / 6 == 2) << i;
}

TEST(QueryKey, RefusesWrongTensors) {
  std::vector<float> x(24), turn(12), reciprocal(4);
  const auto message = [&](const QueryKey& t) { return error_of([&] { run({}, QueryKeyForward{t}); }); };
  EXPECT_THAT(message({matrix(x, 2, 12), 5, {}, {}}), testing::HasSubstr("2 * heads = 10"));
  EXPECT_THAT(message({matrix(x, 2, 12), 2, matrix(turn, 4, 3), {}}),
              testing::HasSubstr("pairs of channels"));
  EXPECT_THAT(message({matrix(x, 2, 12), 1, matrix(turn, 3, 4), {}}),
              testing::HasSubstr("rotation is f32 (3, 4), must be f32 (any, 6)"));
  EXPECT_THAT(message({matrix(x, 2, 12), 2, {}, matrix(reciprocal, 2, 2)}),
              testing::HasSubstr("reciprocal_rms is f32 (2, 2), must be f32 (2, 4)"));
  const std::vector<int64_t> beyond{0, 2};
  EXPECT_THAT(error_of([&] {
                run({}, QueryKeyAt{{matrix(x, 2, 12), 1, matrix(turn, 2, 6), {}}, beyond});
              }),
              testing::HasSubstr("position is 2, must be below 2"));
}

}  // namespace
}  // namespace longstride
