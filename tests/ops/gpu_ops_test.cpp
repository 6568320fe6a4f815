// Every op on the GPU against the fp64 reference, and what an op says to what it does not take. Skipped where
// there is no GPU; `make test-gpu` runs them.
#include <algorithm>
#include <string>

#include "longstride/device/backend.h"
#include "longstride/ops/activation.h"
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/cuda/attention_lists.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/verify/checks.h"
#include "longstride/verify/workbench.h"

#include "tests/ops/op_test.h"

namespace longstride {
namespace {

constexpr Device kGpu{DeviceKind::cuda, 0};

class GpuOps : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = backend(kGpu).why_not(kGpu.index);
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

// What tools/why-no-gpu runs.
TEST_F(GpuOps, IsThere) {}

class GpuChecks : public GpuOps, public testing::WithParamInterface<verify::CheckGroup> {};

TEST_P(GpuChecks, AgreeWithTheReference) { expect_all_pass(GetParam().run(kGpu, verify::Effort::thorough)); }

// "query-key" -> "query_key"
std::string name_of_check(const testing::TestParamInfo<verify::CheckGroup>& info) {
  std::string name = info.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == ' ' || c == '-'; }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Ops, GpuChecks, testing::ValuesIn(verify::kCheckGroups), name_of_check);

// The kernels that serve chips without ones of their own; the same as above on such a chip.
TEST_F(GpuOps, PortableAttention) {
  cuda::prefer_portable_attention(true);
  const std::vector<verify::Check> checks = verify::check_attention(kGpu, verify::Effort::thorough);
  cuda::prefer_portable_attention(false);
  expect_all_pass(checks);
}

// A GPU's memory is not looked at before an op runs.
TEST_F(GpuOps, ValuesBeyondATableGiveNan) {
  verify::Workbench bench(kGpu);
  const Tensor loss = bench.poisoned(DType::f32, {2});
  run(bench.context(), CrossEntropyForward{bench.put(verify::Floats(6, 1.0f), {2, 3}),
                                           bench.put(verify::Bytes{2, 3}, {2}), loss});
  EXPECT_THAT(bench.get(loss), testing::ElementsAre(testing::FloatNear(1.0986123f, 1e-6f), testing::IsNan()));

  EmbeddingTables tables;
  tables.token = bench.put(verify::Floats{1, 2, 3}, {3, 1}), tables.start = bench.put(verify::Floats{7}, {1});
  const Tensor y = bench.poisoned(DType::f32, {3, 1});
  run(bench.context(), EmbeddingForward{bench.put(verify::Bytes{3, 1, 0}, {1, 3}), tables, y});
  EXPECT_THAT(bench.get(y), testing::ElementsAre(7.0f, testing::IsNan(), 2.0f));
}

TEST_F(GpuOps, RefusesWhatLiesOnTheCpu) {
  verify::Workbench bench(kGpu);
  std::vector<float> x(6);
  EXPECT_THAT(error_of([&] {
                run(bench.context(), ActivationForward{flat(x), bench.poisoned(DType::f32, {6})});
              }),
              testing::HasSubstr("x is on a different device from cuda:0"));
}

// Work that was recorded once draws other masks when the step in memory is another.
TEST_F(GpuOps, RecordedDropoutReadsTheStepWhenItRuns) {
  constexpr int64_t kCount = 5000;
  verify::Workbench bench(kGpu);
  const Tensor step = bench.put(verify::Bytes{1, 0, 0, 0}, {4}),
               later = bench.put(verify::Bytes{2, 0, 0, 0}, {4});
  const Tensor dy = bench.put(verify::Floats(kCount, 1.0f), {kCount});
  const Tensor recorded = bench.poisoned(DType::f32, {kCount}), fresh = bench.poisoned(DType::f32, {kCount});
  Dropout dropout{RandomStream{5, 6, 0}, 0.5};
  dropout.step_from = static_cast<const uint32_t*>(step.data);
  const OpContext context = bench.context();
  const auto graph = backend(kGpu).record([&] { run(context, DropoutBackward{dy, dropout, recorded}); });
  for (uint32_t value : {1u, 2u}) {
    if (value == 2) copy(later, step);
    graph->launch();
    const Dropout plain{RandomStream{5, 6, value}, 0.5};
    run(context, DropoutBackward{dy, plain, fresh});
    EXPECT_EQ(bench.get(recorded), bench.get(fresh)) << "step " << value;
  }
}

}  // namespace
}  // namespace longstride
