// Compares the scalar model's gradients with derivatives of its losses. With complex numbers, f(x + ih) =
// f(x) + ih f'(x) gives the derivative to full precision, because nothing is subtracted.
#include "longstride/model/reference.h"

#include <algorithm>
#include <complex>

#include <gtest/gtest.h>

namespace longstride::reference {
namespace {

using Complex = std::complex<double>;

struct Problem {
  ModelConfig config;
  ModelRun run;
  Parameters<double> weights;
  std::vector<uint8_t> tokens;
};

Problem make_problem(const ModelConfig& config, const ModelRun& run) {
  Problem problem{config, run, {}, {}};
  const std::vector<ParameterSpec> table = parameter_table(config);
  for (size_t i = 0; i < table.size(); ++i) {
    const RandomStream random{3, random_stream::kInitialise, static_cast<uint32_t>(i)};
    const double deviation = table[i].shape.size() == 1 ? 0.3 : 0.4;
    std::vector<double>& w = problem.weights.emplace_back(table[i].count());
    for (size_t e = 0; e < w.size(); ++e) w[e] = table[i].mean + deviation * random.normal(e);
  }
  const RandomStream random{3, random_stream::kBatch, 0};
  for (int64_t i = 0; i < run.batch * config.context; ++i)
    problem.tokens.push_back(static_cast<uint8_t>(random.block(i)[0]));
  return problem;
}

// The derivative of 0.25 times the sum of the losses with respect to one weight.
double derivative(const Problem& problem, const Parameters<Complex>& weights, size_t parameter,
                  size_t element) {
  constexpr double kStep = 1e-40;
  Parameters<Complex> shifted = weights;
  shifted[parameter][element] += Complex(0, kStep);
  Model<Complex> model(problem.config, shifted, problem.run);
  Complex sum = 0;
  for (const Complex& loss : model.forward(problem.tokens)) sum += loss;
  return 0.25 * sum.imag() / kStep;
}

void check_gradients(const Problem& problem) {
  Model<double> model(problem.config, problem.weights, problem.run);
  model.forward(problem.tokens);
  const Parameters<double> gradients = model.backward(problem.tokens, 0.25);
  Parameters<Complex> weights;
  for (const auto& w : problem.weights) weights.emplace_back(w.begin(), w.end());

  const std::vector<ParameterSpec> table = parameter_table(problem.config);
  for (size_t i = 0; i < table.size(); ++i) {
    const std::vector<double>& g = gradients[i];
    const auto by_magnitude = [](double a, double b) { return std::abs(a) < std::abs(b); };
    const size_t largest = std::max_element(g.begin(), g.end(), by_magnitude) - g.begin();
    const double magnitude = std::abs(g[largest]);
    EXPECT_GT(magnitude, 1e-3) << table[i].name;
    const RandomStream random{4, random_stream::kSample, static_cast<uint32_t>(i)};
    std::vector<size_t> sample = {largest, 0, g.size() - 1};
    for (uint64_t draw = 0; draw < 5; ++draw) sample.push_back(random.block(draw)[0] % g.size());
    for (const size_t e : sample)
      EXPECT_NEAR(g[e], derivative(problem, weights, i, e), 1e-12 * magnitude)
          << table[i].name << "[" << e << "]";
  }
}

ModelConfig small(const std::string& pattern, int64_t context) {
  ModelConfig config;
  config.context = context, config.layers = 2, config.heads = 2, config.width = 6, config.feed_forward = 10;
  config.pattern = pattern;
  return config;
}

TEST(ReferenceModel, GradientsOfAMergedPatternAreDerivatives) {
  check_gradients(make_problem(small("fixed:4,1", 11), {.batch = 2}));
}

TEST(ReferenceModel, GradientsWithDropoutAndHalfSizeKeysAreDerivatives) {
  ModelConfig config = small("stride:3,window:3", 13);
  config.qk_width = 2, config.positions = "released", config.position_axes = {2, 3, 3};
  check_gradients(make_problem(config, {.batch = 2, .dropout = 0.3, .seed = 9, .step = 4}));
}

TEST(ReferenceModel, GradientsWithHeadsThatSeeNothingAreDerivatives) {
  // Before the first summary, the second head's queries have no key.
  check_gradients(make_problem(small("window:4|summary:4,1", 10), {.batch = 1}));
}

TEST(ReferenceModel, GradientsOfRotaryAndNormalisedQueriesAreDerivatives) {
  for (const bool norm : {true, false}) {
    ModelConfig config = small("fixed:4,1", 11);
    config.width = 12, config.positions = "rotary", config.qk_norm = norm;
    check_gradients(make_problem(config, {.batch = 2}));
    config.position_axes = {4, 3};
    check_gradients(make_problem(config, {.batch = 1}));
  }
}

TEST(ReferenceModel, GradientsOfMixedValuesAreDerivatives) {
  for (const int64_t layers : {1, 2, 4}) {
    ModelConfig config = small("fixed:4,1", 7);
    config.layers = layers, config.value_residual = 0.3;
    check_gradients(make_problem(config, {.batch = 2}));
  }
}

TEST(ReferenceModel, GradientsOfConvolutionsAreDerivatives) {
  for (const bool all : {false, true}) {
    ModelConfig config = small("fixed:4,1", 7);
    config.convolution = 4;
    if (all)
      config.positions = "rotary", config.qk_norm = true, config.value_residual = 0.3, config.width = 12;
    check_gradients(make_problem(config, {.batch = 2}));
  }
  ModelConfig config = small("dense", 3);  // fewer positions than are convolved
  config.convolution = 4;
  check_gradients(make_problem(config, {.batch = 2}));
}

TEST(ReferenceModel, DropoutChangesLossesByStepLayerAndSeed) {
  Problem problem = make_problem(small("window:4", 10), {.batch = 1, .dropout = 0.4, .seed = 1, .step = 1});
  const auto losses = [&](double dropout, uint64_t seed, uint32_t step) {
    problem.run.dropout = dropout, problem.run.seed = seed, problem.run.step = step;
    return Model<double>(problem.config, problem.weights, problem.run).forward(problem.tokens);
  };
  EXPECT_EQ(losses(0.4, 1, 1), losses(0.4, 1, 1));
  EXPECT_NE(losses(0.4, 1, 1), losses(0.4, 1, 2));
  EXPECT_NE(losses(0.4, 1, 1), losses(0.4, 2, 1));
  EXPECT_NE(losses(0.4, 1, 1), losses(0, 1, 1));
  EXPECT_EQ(losses(0, 1, 1), losses(0, 2, 2));
}

// Changing a token may change only the losses of that token and of positions that can see it.
TEST(ReferenceModel, NothingLooksAhead) {
  for (const std::string positions : {"paper", "released", "rotary"}) {
    ModelConfig config = small("strided:4", 12);
    config.width = 8;
    config.positions = positions;
    Problem problem = make_problem(config, {.batch = 1});
    const auto before = Model<double>(config, problem.weights, problem.run).forward(problem.tokens);
    for (int64_t changed = 0; changed < config.context; ++changed) {
      std::vector<uint8_t> tokens = problem.tokens;
      tokens[changed] ^= 0x55;
      const auto after = Model<double>(config, problem.weights, problem.run).forward(tokens);
      for (int64_t i = 0; i < changed; ++i) EXPECT_EQ(before[i], after[i]) << positions;
      EXPECT_NE(before[changed], after[changed]);
      if (changed + 1 == config.context) continue;
      EXPECT_NE(before[changed + 1], after[changed + 1]) << positions;
    }
  }
}

}  // namespace
}  // namespace longstride::reference
