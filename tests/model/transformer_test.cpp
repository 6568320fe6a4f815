// The fast model: the checks against the double-precision model, its memory plan, its first loss and its
// errors.
#include "longstride/model/transformer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "longstride/verify/checks.h"

namespace longstride {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();

ModelConfig small() {
  ModelConfig config;
  config.context = 64, config.layers = 3, config.heads = 2, config.width = 16, config.feed_forward = 32;
  config.pattern = "fixed:8,2", config.position_axes = {8, 8};
  return config;
}

struct Trial {
  explicit Trial(const ModelConfig& config, int64_t batch = 1)
      : config(config),
        table(parameter_table(config)),
        weights(table, {}, DType::f32),
        gradients(table, {}, DType::f32),
        token_bytes(batch * config.context),
        loss_values(batch * config.context, kNan),
        tokens(token_bytes.data(), DType::u8, {batch, config.context}),
        losses(loss_values.data(), DType::f32, {batch, config.context}) {
    initialise(table, 1, weights);
    for (size_t i = 0; i < token_bytes.size(); ++i) token_bytes[i] = static_cast<uint8_t>(i * 37 + i * i);
  }
  ModelParameters roles() const { return by_role(config, weights, {}); }
  ModelParameters gradient_roles() const { return by_role(config, gradients, {}); }

  ModelConfig config;
  std::vector<ParameterSpec> table;
  ParameterStore weights, gradients;
  std::vector<uint8_t> token_bytes;
  std::vector<float> loss_values;
  Tensor tokens, losses;
};

TEST(Transformer, PassesEveryCheckAgainstTheDoublePrecisionModel) {
  const std::vector<verify::Check> checks = verify::check_model({}, verify::Effort::thorough);
  EXPECT_GT(checks.size(), 300u);
  double worst = 0;
  for (const verify::Check& check : checks) {
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
    if (check.allowed > 0) worst = std::max(worst, check.error / check.allowed);
  }
  RecordProperty("worst_of_allowed", std::to_string(worst));
}

TEST(Transformer, AFreshModelKnowsNothing) {
  for (const std::string init : {"paper", "released"}) {
    ModelConfig config = small();
    config.init = init;
    Trial trial(config, 2);
    Transformer model(config, {.batch = 2});
    model.evaluate(trial.roles(), trial.tokens, trial.losses);
    for (float loss : trial.loss_values) EXPECT_FLOAT_EQ(loss, std::log(256.0f));
  }
}

TEST(Transformer, GradientsAreAddedTo) {
  Trial trial(small());
  Transformer model(trial.config, {.training = true});
  const auto output_gradient = [&] {
    const Tensor& g = trial.gradients[trial.table.size() - 1];
    return std::vector<float>(g.as<float>(), g.as<float>() + g.count());
  };
  model.forward_backward(trial.roles(), trial.tokens, {}, trial.losses, trial.gradient_roles());
  const std::vector<float> once = output_gradient();
  model.forward_backward(trial.roles(), trial.tokens, {}, trial.losses, trial.gradient_roles());
  const std::vector<float> twice = output_gradient();
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-4);
}

void expect_planned_memory(const ModelConfig& config) {
  for (const bool training : {false, true}) {
    for (const bool recompute : {false, true}) {
      for (const DType product : {DType::f32, DType::bf16}) {
        const ComputePlan plan{.product = product, .batch = 3, .training = training, .recompute = recompute};
        const MemoryPlan memory = plan_memory(config, plan, true);
        const Transformer model(config, plan);
        EXPECT_EQ(model.workspace_bytes(), memory.activations + memory.temporaries);
        EXPECT_EQ(model.planned_attention_bytes(), memory.plans);
      }
    }
  }
}

TEST(Transformer, TheMemoryPlanIsWhatAModelTakes) {
  ModelConfig config = small();
  config.pattern = "stride:8,window:8";
  expect_planned_memory(config);
  config.value_residual = 0.4;
  expect_planned_memory(config);
  config.convolution = 4;
  expect_planned_memory(config);
}

TEST(Transformer, ConvolutionsTakeOnePlace) {
  ModelConfig plain = small(), convolved = plain;
  convolved.convolution = 4;
  const int64_t rows = 2 * 64 * 16;
  for (const ComputePlan& plan :
       {ComputePlan{.product = DType::bf16, .batch = 2, .training = true, .recompute = false},
        {.product = DType::bf16, .batch = 2, .training = true, .recompute = true},
        {.product = DType::bf16, .batch = 2}}) {
    const MemoryPlan with = plan_memory(convolved, plan, true), without = plan_memory(plain, plan, true);
    EXPECT_EQ(with.activations, without.activations);
    EXPECT_EQ(with.temporaries - without.temporaries, 2 * rows);
    EXPECT_EQ(with.products, without.products);
  }
}

// The first block's values have memory of their own only where they would be overwritten. The sum of their
// gradients is in f32.
TEST(Transformer, MixedValuesTakeOnePlaceAndOneSum) {
  ModelConfig config = small();
  const int64_t values = 2 * 64 * 16;
  const auto more = [&](const ComputePlan& plan) {
    ModelConfig mixed = config;
    mixed.value_residual = 0.4;
    const MemoryPlan with = plan_memory(mixed, plan, false), without = plan_memory(config, plan, false);
    return std::pair{with.activations - without.activations, with.temporaries - without.temporaries};
  };
  using Bytes = std::pair<int64_t, int64_t>;
  const ComputePlan kept{.product = DType::bf16, .batch = 2, .training = true, .recompute = false};
  const ComputePlan again{.product = DType::bf16, .batch = 2, .training = true, .recompute = true};
  EXPECT_EQ(more(kept), Bytes(0, 4 * values));
  EXPECT_EQ(more(again), Bytes(2 * values, 4 * values));
  EXPECT_EQ(more({.product = DType::bf16, .batch = 2}), Bytes(2 * values, 0));
  config.layers = 1;
  EXPECT_EQ(more(again), Bytes(0, 0));
}

// All extents are multiples of 16 elements, so that alignment adds nothing to sums by hand.
TEST(Transformer, MemoryCountedByHand) {
  const ModelConfig config = small();
  const int64_t rows = 2 * 64, d = 16, ff = 32, heads = 2, layers = 3;
  const int64_t stream = rows * d,
                block = 2 * rows + rows * 3 * d + stream + heads * rows + stream + 2 * rows + rows * ff;
  const auto activations = [&](bool training, bool recompute) {
    return plan_memory(config, {.batch = 2, .training = training, .recompute = recompute}, false).activations;
  };
  EXPECT_EQ(activations(true, false), 4 * ((layers + 1) * stream + layers * block));
  // `mid`, between the branches, needs memory of its own only if it is kept.
  EXPECT_EQ(activations(true, true), 4 * ((layers + 1) * stream + block - stream));
  EXPECT_EQ(activations(false, true), 4 * (stream + block - stream));

  // With bf16 products, qkv, attended and up take half.
  const int64_t on_branches = rows * 3 * d + stream + rows * ff;
  EXPECT_EQ(
      plan_memory(config, {.product = DType::bf16, .batch = 2, .training = true, .recompute = false}, false)
          .activations,
      4 * ((layers + 1) * stream + layers * block) - 2 * layers * on_branches);

  const int64_t parameters = count_parameters(config);
  const MemoryPlan plain = plan_memory(config, {.training = true}, false);
  EXPECT_EQ(plain.weights, 4 * parameters);
  EXPECT_EQ(plain.products, 0);
  EXPECT_EQ(plain.gradients, 4 * parameters);
  EXPECT_EQ(plain.optimizer, 8 * parameters);
  EXPECT_EQ(plain.average, 0);
  const MemoryPlan bf16 = plan_memory(config, {.product = DType::bf16, .training = true}, true);
  EXPECT_EQ(bf16.products, 2 * (layers * (3 * d * d + d * d + 2 * d * ff) + 256 * d));
  EXPECT_EQ(bf16.average, 4 * parameters);
  const MemoryPlan inference = plan_memory(config, {}, false);
  EXPECT_EQ(inference.gradients + inference.optimizer + inference.average, 0);
}

TEST(Update, AgreesWithTheReference) {
  for (const verify::Check& check : verify::check_update({}, verify::Effort::thorough))
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Transformer, RefusesTokensAndLossesOfOtherShapes) {
  Trial trial(small());
  Transformer model(trial.config, {.batch = 2});
  EXPECT_THAT(message_of([&] { model.evaluate(trial.roles(), trial.tokens, trial.losses); }),
              testing::AllOf(testing::HasSubstr("u8 (1, 64)"), testing::HasSubstr("(2, 64)")));
  Transformer single(trial.config, {});
  const Tensor wrong(trial.loss_values.data(), DType::f32, {1, 32});
  EXPECT_THAT(message_of([&] { single.evaluate(trial.roles(), trial.tokens, wrong); }),
              testing::HasSubstr("(1, 32)"));
  EXPECT_THAT(message_of([&] { Transformer(trial.config, {.batch = 0}); }), testing::HasSubstr("batch = 0"));
}

TEST(Transformer, AModelPlannedForInferenceDoesNotTrain) {
  Trial trial(small());
  Transformer model(trial.config, {});
  EXPECT_THAT(message_of([&] {
                model.forward_backward(trial.roles(), trial.tokens, {}, trial.losses, trial.gradient_roles());
              }),
              testing::HasSubstr("inference"));
}

}  // namespace
}  // namespace longstride
