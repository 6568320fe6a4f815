#include "longstride/ops/muon.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "longstride/base/threads.h"
#include "longstride/ops/reference/muon.h"
#include "longstride/ops/update.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

constexpr NewtonSchulz kJordan = NewtonSchulz::jordan, kPolar = NewtonSchulz::polar;

// What the steps make of a singular value.
double moved(NewtonSchulz kind, double value) {
  for (const NewtonSchulzStep& step : steps_of(kind))
    value = step.a * value + step.b * std::pow(value, 3) + step.c * std::pow(value, 5);
  return value;
}

// One matrix of these values, and one Adam parameter that must be there; runs one step.
struct OneMatrix {
  OneMatrix(std::vector<float> weights, std::vector<float> gradient, int64_t rows, int64_t columns,
            NewtonSchulz kind = kPolar)
      : w(std::move(weights)), g(std::move(gradient)), m(w.size()), v(8), average(w) {
    const MuonMatrix matrix{0, rows, columns};
    table = UpdateTable({}, {}, {&matrix, 1}, DType::f32, kind);
    control.adam.ema = 0.75;
    control.muon.rate = 0.25;
  }
  void step() {
    Arena scratch({}, update_scratch_bytes({}, table.matrices(), DType::f32));
    update_parameters({{}, &scratch}, table, {flat(w), flat(g), flat(m), flat(v), flat(average), {}},
                      &control);
  }
  std::vector<float> w, g, m, v, average;
  UpdateTable table;
  UpdateControl control;
};

TEST(Muon, AgreesWithTheReference) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // More sizes of the same loops take minutes there.
  constexpr verify::Effort kEffort = verify::Effort::quick;
#else
  constexpr verify::Effort kEffort = verify::Effort::thorough;
#endif
  expect_all_pass(verify::check_muon({}, kEffort));
}

class MuonKindTest : public testing::TestWithParam<NewtonSchulz> {};
INSTANTIATE_TEST_SUITE_P(Kinds, MuonKindTest, testing::Values(kJordan, kPolar));

TEST_P(MuonKindTest, SingularValuesComeNearOneAndDirectionsStay) {
  // A rotation, two values on the diagonal, another rotation: the steps act on the values alone.
  const double c = 0.6, s = 0.8, values[] = {0.95, 0.05};
  std::vector<float> x(4), wanted(4);
  for (int row = 0; row < 2; ++row)
    for (int column = 0; column < 2; ++column)
      for (int i = 0; i < 2; ++i) {
        const double left[2][2] = {{c, -s}, {s, c}}, right[2][2] = {{s, c}, {-c, s}};
        const double part = left[row][i] * right[i][column];
        x[2 * row + column] += static_cast<float>(values[i] * part);
        wanted[2 * row + column] += static_cast<float>(moved(GetParam(), values[i]) * part);
      }
  const Orthogonalize call{GetParam(), Tensor(x.data(), DType::f32, {1, 2, 2})};
  Arena scratch({}, scratch_bytes({}, call));
  run({{}, &scratch}, call);
  EXPECT_THAT(x, testing::Pointwise(testing::FloatNear(1e-5f), wanted));
}

// The range that values in [least, 1] end in.
std::pair<double, double> range_of(NewtonSchulz kind, double least) {
  constexpr int kValues = 100'000;
  double low = moved(kind, 1), high = low;
  for (int i = 0; i < kValues; ++i) {
    const double value = moved(kind, std::pow(least, static_cast<double>(i) / kValues));
    low = std::min(low, value), high = std::max(high, value);
  }
  return {low, high};
}

TEST(Muon, SingularValuesEndWhereItIsSaidThatTheyDo) {
  const auto expect_range = [](NewtonSchulz kind, double least, double low, double high) {
    const auto [found_low, found_high] = range_of(kind, least);
    EXPECT_NEAR(found_low, low, 0.002);
    EXPECT_NEAR(found_high, high, 0.002);
  };
  expect_range(kJordan, 0.0016, 0.682, 1.202);
  expect_range(kPolar, 0.0044, 0.876, 1.124);
  EXPECT_NEAR(moved(kJordan, 0.001), 0.471, 0.001);
  EXPECT_NEAR(moved(kPolar, 0.001), 0.235, 0.001);
}

// In sixteen bits X, A and b A + c A^2 are rounded between products. Whatever the matrix, they stay small,
// and values at the end of the polynomials' interval do not run away.
TEST_P(MuonKindTest, SixteenBitsNeitherOverflowNorRunAway) {
  constexpr int64_t kRows = 24, kColumns = 40;
  std::vector<float> flat_row(kRows * kColumns, 1), one_element(kRows * kColumns), tiny(kRows * kColumns);
  one_element[17] = 1;
  const verify::Floats noise = verify::normal_values(1, kRows * kColumns);
  for (size_t i = 0; i < tiny.size(); ++i) tiny[i] = flat_row[i] + 1e-3f * noise[i];
  for (std::vector<float> x : {flat_row, one_element, tiny, noise}) {
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    for (float& value : x) value /= static_cast<float>(std::sqrt(squares));
    const verify::Doubles truth = reference::newton_schulz(GetParam(), verify::widened(x), kRows, kColumns,
                                                           [](double value) { return value; });
    for (const DType dtype : {DType::f16, DType::bf16}) {
      float largest = 0;
      const auto stored = [&](float value) {
        largest = std::max(largest, std::abs(value));
        return verify::as_stored({value}, dtype)[0];
      };
      const std::vector<float> rounded = reference::newton_schulz(GetParam(), x, kRows, kColumns, stored);
      EXPECT_LT(largest, 10);
      // How much of the right result is in it, up to the spread that the steps leave anyway; beside it lies
      // rounding's part in directions without a value.
      double common = 0, norm = 0;
      for (size_t i = 0; i < x.size(); ++i) common += rounded[i] * truth[i], norm += truth[i] * truth[i];
      EXPECT_NEAR(common / norm, 1, dtype == DType::f16 ? 0.05 : 0.4) << name_of(dtype);
    }
  }
}

TEST(Muon, OperationsAreThoseOfTheSteps) {
  // A and A^2 of (64, 64) and A X of (64, 256): 64 * 64 * (256 + 64 + 256) products and as many sums.
  EXPECT_EQ(newton_schulz_flops(kPolar, 64, 256), 4 * 2.0 * 64 * 64 * (256 + 64 + 256));
  EXPECT_EQ(newton_schulz_flops(kJordan, 256, 64), 5 * 2.0 * 64 * 64 * (256 + 64 + 256));
}

TEST(Muon, KindsHaveNames) {
  EXPECT_EQ(parse_newton_schulz("jordan"), kJordan);
  EXPECT_EQ(parse_newton_schulz("polar"), kPolar);
  EXPECT_EQ(error_of([] { parse_newton_schulz("cubic"); }),
            "unknown steps of Muon: cubic; known: polar, jordan");
}

TEST_P(MuonKindTest, TwoStepsOfANumberByHand) {
  // A matrix of one element becomes its sign, as far as the steps take it.
  OneMatrix one({1}, {4}, 1, 1, GetParam());
  const auto step = static_cast<float>(0.25 * moved(GetParam(), 1));
  one.control.muon.momentum = 0.5;
  one.step();
  EXPECT_FLOAT_EQ(one.m[0], 2);  // (1 - 1/2) 4
  EXPECT_NEAR(one.w[0], 1 - step, 1e-6f);
  EXPECT_NEAR(one.average[0], 0.75f + 0.25f * (1 - step), 1e-6f);
  EXPECT_EQ(one.g[0], 0);
  // m = 1.5, and u = -1 + (1.5 + 1) / 2 = 0.25: the momentum still outweighs the gradient.
  one.m[0] = 4, one.g[0] = -1;
  one.step();
  EXPECT_FLOAT_EQ(one.m[0], 1.5f);
  // The numbers of the first polar step are six times as large as Jordan's, and so is their rounding.
  EXPECT_NEAR(one.w[0], 1 - 2 * step, GetParam() == kJordan ? 1e-6f : 6e-6f);
}

TEST(Muon, TallMatricesMoveFurther) {
  OneMatrix tall({0, 0, 0, 0}, {1, 1, 1, 1}, 4, 1), wide({0, 0, 0, 0}, {1, 1, 1, 1}, 1, 4);
  tall.step(), wide.step();
  EXPECT_NEAR(wide.w[0], -0.25 * moved(kPolar, 1) / 2, 1e-6);  // each element of a row of norm 1
  EXPECT_NEAR(tall.w[0], 2 * wide.w[0], 1e-6);                 // sqrt(4 / 1)
}

TEST(Muon, WithoutAGradientOnlyDecays) {
  OneMatrix still({2, -2}, {0, 0}, 1, 2);
  still.control.muon.decay = 0.5;
  still.step();
  EXPECT_THAT(still.w, testing::ElementsAre(2 - 0.25f * 0.5f * 2, -2 + 0.25f * 0.5f * 2));
  EXPECT_EQ(still.m[0], 0);
}

TEST(Muon, ScaledGradientsGiveTheSameStep) {
  OneMatrix plain({0, 0, 0, 0}, {1, 2, 3, 5}, 2, 2), scaled({0, 0, 0, 0}, {1, 2, 3, 5}, 2, 2);
  for (float& g : scaled.g) g *= 1024;
  scaled.control.loss_scale = 1024;
  plain.step(), scaled.step();
  EXPECT_EQ(plain.w, scaled.w);
  EXPECT_EQ(plain.m, scaled.m);
}

TEST(Muon, TheSameBitsForAnyNumberOfThreads) {
  const auto run = [](int threads) {
    set_threads(threads);
    std::vector<MuonMatrix> matrices;
    int64_t offset = 0;
    for (const auto& [rows, columns] :
         {std::pair<int64_t, int64_t>{300, 130}, {130, 300}, {64, 64}, {64, 64}}) {
      matrices.push_back({offset, rows, columns});
      offset += rows * columns;
    }
    verify::Floats w = verify::normal_values(1, offset), g = verify::normal_values(2, offset), m(w.size()),
                   v(8), products(w.size());
    for (const DType product : {DType::f32, DType::bf16}) {
      const UpdateTable table({}, {}, matrices, newton_schulz_dtype({}, product));
      Arena scratch({}, update_scratch_bytes({}, table.matrices(), table.orthogonal()));
      UpdateControl control;
      update_parameters({{}, &scratch}, table, {flat(w), flat(g), flat(m), flat(v), {}, {}}, &control);
      g = verify::normal_values(3, offset);
    }
    w.insert(w.end(), m.begin(), m.end());
    set_threads(0);
    return w;
  };
  const verify::Floats one = run(1);
  for (const int threads : {2, 3, 5}) {
    const verify::Floats many = run(threads);
    EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0) << threads << " threads";
  }
}

TEST(Muon, RefusesWrongArguments) {
  std::vector<float> x(12);
  std::vector<F16> half(12);
  const auto error = [](const Tensor& t) { return error_of([&] { run({}, Orthogonalize{kPolar, t}); }); };
  EXPECT_EQ(error(flat(x)), "newton_schulz: x is f32 (12), must be (count, rows, columns)");
  EXPECT_EQ(error(Tensor(half.data(), DType::f16, {1, 3, 4})),
            "newton_schulz: x is f16, must be f32 or bf16 (f16 needs a GPU)");
  EXPECT_THAT(error(Tensor(x.data(), DType::f32, {1, 3, 4})),
              testing::MatchesRegex("newton_schulz: needs [0-9]+ bytes of scratch, the context has none"));
  const MuonMatrix empty{0, 0, 4};
  EXPECT_EQ(error_of([&] {
              UpdateTable({}, {}, {&empty, 1});
            }),
            "update_parameters: a matrix has 0 rows and 4 columns, must have some");
}

}  // namespace
}  // namespace longstride
