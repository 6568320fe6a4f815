// Whole models on a GPU against the fp64 reference and against the CPU. Skipped where there is no GPU.
#include <gtest/gtest.h>

#include "longstride/device/backend.h"
#include "longstride/model/transformer.h"
#include "longstride/verify/checks.h"

namespace longstride {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};

class GpuModel : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = backend(kGpu).why_not(kGpu.index);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(GpuModel, AgreesWithTheReference) {
  for (const verify::Check& check : verify::check_model(kGpu, verify::Effort::thorough))
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

TEST_F(GpuModel, UpdatesOfAllParametersAgreeWithTheReference) {
  for (const verify::Check& check : verify::check_update(kGpu, verify::Effort::thorough))
    EXPECT_TRUE(check.passed()) << check.name << ": error " << check.error << ", allowed " << check.allowed;
}

// Losses and gradients of one pass on `device`, by parameter.
std::vector<std::vector<float>> pass_of(const ModelConfig& config, Device device, bool recompute,
                                        bool offload) {
  const std::vector<ParameterSpec> table = parameter_table(config);
  const ParameterStore weights(table, device, DType::f32), gradients(table, device, DType::f32);
  initialise(table, 3, weights);
  // The output matrix begins as zeros, which no gradient passes, and so do convolutions.
  const RandomStream random{5, 0, 0};
  for (size_t w = 0; w < table.size(); ++w) {
    if (table[w].shape.size() == 1 || table[w].deviation > 0) continue;
    std::vector<float> drawn(table[w].count());
    const double deviation = table[w].name == "output.weight" ? 0.05 : 0.5;
    for (size_t i = 0; i < drawn.size(); ++i) drawn[i] = static_cast<float>(deviation * random.normal(i));
    copy(Tensor(drawn.data(), DType::f32, {table[w].count()}), weights[w]);
  }

  const int64_t batch = 2, count = batch * config.context;
  std::vector<uint8_t> bytes(count);
  for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(random.block(i)[0]);
  Arena arena(device, 5 * count + 128);
  const Tensor tokens = arena.allocate(DType::u8, {batch, config.context}),
               loss = arena.allocate(DType::f32, {batch, config.context});
  copy(Tensor(bytes.data(), DType::u8, {batch, config.context}), tokens);
  Transformer model(config, {device, DType::f32, batch, true, recompute, offload});
  model.forward_backward(by_role(config, weights, {}), tokens,
                         {.scale = 1.0f / static_cast<float>(count), .dropout = 0.3, .seed = 9, .step = 4},
                         loss, by_role(config, gradients, {}));
  std::vector<std::vector<float>> result;
  const auto fetch = [&](const Tensor& t) {
    std::vector<float>& values = result.emplace_back(t.count());
    copy(t, Tensor(values.data(), DType::f32, {t.count()}));
  };
  fetch(loss);
  for (const Tensor& gradient : gradients.tensors()) fetch(gradient);
  return result;
}

TEST_F(GpuModel, GradientsAreThoseOfTheCpu) {
  ModelConfig config;
  config.context = 300;
  config.layers = 5;
  config.heads = 4;
  config.width = 64;
  config.pattern = "fixed:32,8";
  for (const auto& [share, convolution] : {std::pair{0.0, 0}, {0.4, 0}, {0.4, 4}}) {
    config.value_residual = share, config.convolution = convolution;
    const auto cpu = pass_of(config, {}, true, false);
    for (const auto& [recompute, offload] : {std::pair{false, false}, {true, false}, {true, true}}) {
      const auto gpu = pass_of(config, kGpu, recompute, offload);
      ASSERT_EQ(gpu.size(), cpu.size());
      for (size_t i = 0; i < cpu.size(); ++i) {
        const std::vector<double> expected(cpu[i].begin(), cpu[i].end());
        EXPECT_LT(verify::relative_error(gpu[i], expected), 2e-5)
            << "tensor " << i << ", share " << share << ", " << convolution << " convolved";
      }
    }
  }
}

}  // namespace
}  // namespace longstride
