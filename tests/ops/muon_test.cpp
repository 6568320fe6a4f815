#include "longstride/ops/muon.h"

#include <cmath>
#include <cstring>

#include "longstride/base/threads.h"
#include "longstride/ops/update.h"
#include "longstride/verify/workbench.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

// What the steps make of a singular value.
double moved(double value) {
  for (const NewtonSchulzStep& step : kNewtonSchulz)
    value = step.a * value + step.b * std::pow(value, 3) + step.c * std::pow(value, 5);
  return value;
}

// One matrix of these values, and one Adam parameter that must be there; runs one step.
struct OneMatrix {
  OneMatrix(std::vector<float> weights, std::vector<float> gradient, int64_t rows, int64_t columns)
      : w(std::move(weights)), g(std::move(gradient)), m(w.size()), v(8), average(w) {
    const MuonMatrix matrix{0, rows, columns};
    table = UpdateTable({}, {}, {&matrix, 1});
    control.adam.ema = 0.75;
    control.muon.rate = 0.25;
  }
  void step() {
    Arena scratch({}, muon_scratch_bytes({}, table.matrices(), DType::f32));
    update_parameters({{}, &scratch}, table, {flat(w), flat(g), flat(m), flat(v), flat(average), {}},
                      &control);
  }
  std::vector<float> w, g, m, v, average;
  UpdateTable table;
  UpdateControl control;
};

TEST(Muon, AgreesWithTheReference) { expect_all_pass(verify::check_muon({}, verify::Effort::thorough)); }

TEST(Muon, SingularValuesComeNearOneAndDirectionsStay) {
  // A rotation, two values on the diagonal, another rotation: the steps act on the values alone.
  const double c = 0.6, s = 0.8, values[] = {0.95, 0.05};
  std::vector<float> x(4), wanted(4);
  for (int row = 0; row < 2; ++row)
    for (int column = 0; column < 2; ++column)
      for (int i = 0; i < 2; ++i) {
        const double left[2][2] = {{c, -s}, {s, c}}, right[2][2] = {{s, c}, {-c, s}};
        const double part = left[row][i] * right[i][column];
        x[2 * row + column] += static_cast<float>(values[i] * part);
        wanted[2 * row + column] += static_cast<float>(moved(values[i]) * part);
      }
  Arena scratch({}, newton_schulz_scratch_bytes({}, 1, 2, 2, DType::f32));
  newton_schulz({{}, &scratch}, Tensor(x.data(), DType::f32, {1, 2, 2}));
  EXPECT_THAT(x, testing::Pointwise(testing::FloatNear(1e-5f), wanted));
  for (const double value : {0.01, 0.05, 0.3, 1.0}) {
    EXPECT_GT(moved(value), 0.6) << value;
    EXPECT_LT(moved(value), 1.25) << value;
  }
}

TEST(Muon, TwoStepsOfANumberByHand) {
  // A matrix of one element becomes its sign, as far as five steps take it.
  OneMatrix one({1}, {4}, 1, 1);
  const auto step = static_cast<float>(0.25 * moved(1));
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
  EXPECT_NEAR(one.w[0], 1 - 2 * step, 1e-6f);
}

TEST(Muon, TallMatricesMoveFurther) {
  OneMatrix tall({0, 0, 0, 0}, {1, 1, 1, 1}, 4, 1), wide({0, 0, 0, 0}, {1, 1, 1, 1}, 1, 4);
  tall.step(), wide.step();
  EXPECT_NEAR(wide.w[0], -0.25 * moved(1) / 2, 1e-6);  // each element of a row of norm 1
  EXPECT_NEAR(tall.w[0], 2 * wide.w[0], 1e-6);         // sqrt(4 / 1)
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
      Arena scratch({}, muon_scratch_bytes({}, table.matrices(), table.orthogonal()));
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
  const auto run = [](const Tensor& t) { return error_of([&] { newton_schulz({}, t); }); };
  EXPECT_EQ(run(flat(x)), "newton_schulz: x is f32 (12), must be (count, rows, columns)");
  EXPECT_EQ(run(Tensor(half.data(), DType::f16, {1, 3, 4})),
            "newton_schulz: x is f16, must be f32 or bf16 (f16 needs a GPU)");
  EXPECT_THAT(run(Tensor(x.data(), DType::f32, {1, 3, 4})),
              testing::MatchesRegex("newton_schulz: needs [0-9]+ bytes of scratch, the context has none"));
  const MuonMatrix empty{0, 0, 4};
  EXPECT_EQ(error_of([&] {
              UpdateTable({}, {}, {&empty, 1});
            }),
            "update_parameters: a matrix has 0 rows and 4 columns, must have some");
}

}  // namespace
}  // namespace longstride
