// Evaluation on a GPU against the CPU. Skipped where there is no GPU.
#include <gtest/gtest.h>

#include "longstride/device/backend.h"
#include "longstride/eval/evaluate.h"

#include "tests/support/gpu_weights.h"

namespace longstride {
namespace {

using support::kGpu;
using support::OnGpu;
using support::random_bytes;
using support::RandomModel;
using support::small_config;

class GpuEvaluate : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const std::string reason = backend(kGpu).why_not(kGpu.index);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

// Windows that overlap and a last batch that is not full, twice in the same room.
TEST_P(GpuEvaluate, GivesTheBitsOfTheCpu) {
  const DType product = GetParam();
  const RandomModel model(small_config("fixed:8,2|strided:5", 40));
  const OnGpu there(model, product);
  const std::vector<uint8_t> bytes = random_bytes(1000, 5);
  ComputePlan plan;
  plan.batch = 7;
  Transformer on_cpu(model.config, plan);
  const Evaluation expected = evaluate_bytes(on_cpu, model.parameters, bytes, 0, 12, 0);

  plan.device = kGpu;
  plan.product = product;
  Transformer on_gpu(model.config, plan);
  const BatchRoom room(on_gpu);
  const Evaluation first = evaluate_bytes(room, there.parameters, bytes, 0, 12, 0);
  const Evaluation again = evaluate_bytes(room, there.parameters, bytes, 0, 12, 0);
  EXPECT_EQ(first.nats_at, again.nats_at);
  EXPECT_EQ(first.bytes, expected.bytes);
  EXPECT_EQ(first.windows, expected.windows);
  EXPECT_EQ(first.count_at, expected.count_at);
  EXPECT_NEAR(first.bits(), expected.bits(), product == DType::f32 ? 1e-3 : 0.03);
}

INSTANTIATE_TEST_SUITE_P(Precisions, GpuEvaluate, ::testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace longstride
