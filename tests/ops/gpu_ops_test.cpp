// Every op on the GPU against the fp64 reference, and what an op says to what it does not take. Skipped where
// there is no GPU; `make test-gpu` runs them.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <tuple>

#include <fmt/format.h>

#include "longstride/base/rng.h"
#include "longstride/device/backend.h"
#include "longstride/device/cuda_check.h"
#include "longstride/ops/activation.h"
#include "longstride/ops/attention.h"
#include "longstride/ops/cross_entropy.h"
#include "longstride/ops/cuda/attention_lists.h"
#include "longstride/ops/cuda/hopper/newton_schulz.h"
#include "longstride/ops/cuda/muon_products.h"
#include "longstride/ops/dropout.h"
#include "longstride/ops/embedding.h"
#include "longstride/ops/muon.h"
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

// Kernels that serve during its life, however a test ends.
struct Preferred {
  explicit Preferred(cuda::AttentionKernels kernels) { cuda::prefer_attention(kernels); }
  ~Preferred() { cuda::prefer_attention(cuda::AttentionKernels::chosen); }
};

// All of attention by kernels that serve only some chips or lengths by themselves, in parts that can run side by side.
class GpuAttention : public GpuOps,
                     public testing::WithParamInterface<std::tuple<cuda::AttentionKernels, size_t>> {};
constexpr size_t kParts = 8;

TEST_P(GpuAttention, AgreesWithTheReference) {
  const auto [kernels, part] = GetParam();
  const Preferred preferred(kernels);
  expect_all_pass(verify::check_attention_part(kGpu, verify::Effort::thorough, part, kParts));
}

const char* name_of_kernels(cuda::AttentionKernels kernels) {
  switch (kernels) {
    case cuda::AttentionKernels::portable:
      return "portable";
    case cuda::AttentionKernels::by_roles:
      return "backward_by_roles";
    case cuda::AttentionKernels::by_keys:
      return "backward_by_keys";
    case cuda::AttentionKernels::by_rows:
      return "by_rows";
    default:
      return "chosen";
  }
}

std::string name_of_part(const testing::TestParamInfo<GpuAttention::ParamType>& info) {
  const auto [kernels, part] = info.param;
  return fmt::format("{}_{}", name_of_kernels(kernels), part);
}
// The portable kernels serve chips without ones of their own. By roles and by keys are the backwards of a Hopper
// chip, here whatever the length of the lists; another chip takes the portable one for both. By rows serves what
// no other does.
INSTANTIATE_TEST_SUITE_P(
    Kernels, GpuAttention,
    testing::Combine(testing::Values(cuda::AttentionKernels::portable, cuda::AttentionKernels::by_roles,
                                     cuda::AttentionKernels::by_keys, cuda::AttentionKernels::by_rows),
                     testing::Range<size_t>(0, kParts)),
    name_of_part);

// Few and long: for tools under which a launch takes seconds, such as compute-sanitizer's racecheck.
class GpuAttentionRings
    : public GpuOps,
      public testing::WithParamInterface<std::tuple<cuda::AttentionKernels, DType, int64_t>> {};

TEST_P(GpuAttentionRings, AgreesWithTheReference) {
  const auto [kernels, dtype, width] = GetParam();
  const Preferred preferred(kernels);
  expect_all_pass(verify::check_attention_rings(kGpu, dtype, width));
}

std::string name_of_rings(const testing::TestParamInfo<GpuAttentionRings::ParamType>& info) {
  const auto [kernels, dtype, width] = info.param;
  return fmt::format("{}_{}_{}", name_of_kernels(kernels), name_of(dtype), width);
}
constexpr auto kWidths = {int64_t{32}, int64_t{64}, int64_t{128}};
INSTANTIATE_TEST_SUITE_P(TensorCores, GpuAttentionRings,
                         testing::Combine(testing::Values(cuda::AttentionKernels::portable,
                                                          cuda::AttentionKernels::by_roles,
                                                          cuda::AttentionKernels::by_keys),
                                          testing::Values(DType::bf16), testing::ValuesIn(kWidths)),
                         name_of_rings);
INSTANTIATE_TEST_SUITE_P(Plain, GpuAttentionRings,
                         testing::Combine(testing::Values(cuda::AttentionKernels::portable,
                                                          cuda::AttentionKernels::by_rows),
                                          testing::Values(DType::f32), testing::ValuesIn(kWidths)),
                         name_of_rings);

// Attention of bf16 on a GPU, after its forward.
struct LongAttention {
  static constexpr int64_t kSequences = 2, kPositions = 1500, kHeads = 3;
  AttentionPlan plan;
  verify::Workbench bench;
  AttentionTensors t;
  AttentionGradients gradients;

  // Scratch as tensors of type `measured` need it.
  LongAttention(const char* pattern, int64_t width, DType measured)
      : plan(plan_attention(kGpu, parse_schedule(pattern).layer(0), kHeads, kPositions)),
        bench(kGpu, attention_scratch_bytes(kGpu, plan, measured, kSequences, kHeads, width, width)) {
    const auto input = [&](uint32_t stream) {
      const RandomStream random{17, stream};
      verify::Floats values(static_cast<size_t>(kSequences * kPositions * kHeads * width));
      for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(random.normal(static_cast<int64_t>(i)));
      return bench.put(values, {kSequences, kPositions, kHeads, width}, DType::bf16);
    };
    const auto output = [&] { return bench.poisoned(DType::bf16, {kSequences, kPositions, kHeads, width}); };
    t.q = input(0), t.k = input(1), t.v = input(2), t.o = output(), t.scale = 0.125f;
    t.lse = bench.poisoned(DType::f32, {kSequences, kHeads, kPositions});
    gradients = {input(3), output(), output(), output()};
    run(bench.context(), AttentionForward{plan, t});
  }
  verify::Floats dq() {
    run(bench.context(), AttentionBackward{plan, t, gradients});
    return bench.get(gradients.dq);
  }
};

// dq is a sum of what many blocks of threads add to memory, by turns: in one order, whoever comes first.
TEST_F(GpuOps, AttentionBackwardByKeysIsTheSameAThousandTimes) {
  const Preferred preferred(cuda::AttentionKernels::by_keys);
  for (const char* pattern : {"dense", "fixed:128,32"})
    for (const int64_t width : {64, 128}) {
      LongAttention attention(pattern, width, DType::bf16);
      const verify::Floats first = attention.dq();
      for (int time = 1; time < 250; ++time)
        ASSERT_EQ(attention.dq(), first) << pattern << ", width " << width << ", time " << time;
    }
}

// dq of the two backwards on scratch that was measured for tensors of this type.
std::array<verify::Floats, 2> dq_by_keys_and_by_roles(DType measured) {
  const Preferred while_measuring(cuda::AttentionKernels::by_keys);
  LongAttention attention("dense", 64, measured);
  const auto dq = [&](cuda::AttentionKernels kernels) {
    const Preferred preferred(kernels);
    return attention.dq();
  };
  return {dq(cuda::AttentionKernels::by_keys), dq(cuda::AttentionKernels::by_roles)};
}

// Scratch that was measured for f32 has no room for sums of dq: the other backward serves. Their bits differ, so one
// sees which served.
TEST_F(GpuOps, AttentionBackwardByKeysNeedsNoRoomForSums) {
  const auto [by_keys, by_roles] = dq_by_keys_and_by_roles(DType::f32);
  EXPECT_EQ(by_keys, by_roles);
}
TEST_F(GpuOps, AttentionBackwardByKeysServesInScratchThatWasMeasuredForIt) {
  if (backend(kGpu).describe(kGpu.index).find("sm_90") == std::string::npos)
    GTEST_SKIP() << "the kernels are those of Hopper";
  const auto [by_keys, by_roles] = dq_by_keys_and_by_roles(DType::bf16);
  EXPECT_NE(by_keys, by_roles);
}

struct PreferredProducts {
  explicit PreferredProducts(cuda::MuonProducts products) { cuda::prefer_products(products); }
  ~PreferredProducts() { cuda::prefer_products(cuda::MuonProducts::own); }
};

// Matrices of norm 1 whose singular values spread.
verify::Floats unit_matrices(int64_t count, int64_t rows, int64_t columns) {
  verify::Floats x = verify::normal_values(1, count * rows * columns);
  const auto scale = 1 / std::sqrt(static_cast<float>(rows * columns) * 1.1f);
  for (float& value : x) value *= scale;
  return x;
}

// Newton-Schulz of a batch. Scratch is of its exact size, and holds NaN before.
verify::Floats orthogonal(const verify::Floats& x, std::initializer_list<int64_t> shape, DType dtype,
                          bool recorded = false) {
  const Orthogonalize measured{NewtonSchulz::polar, Tensor(nullptr, dtype, shape, kGpu.kind)};
  verify::Workbench bench(kGpu, scratch_bytes(kGpu, measured));
  const Tensor there = bench.put(x, shape, dtype);
  const Orthogonalize call{NewtonSchulz::polar, there};
  const OpContext context = bench.context();
  if (!recorded) {
    run(context, call);
    return bench.get(there);
  }
  const auto graph = backend(kGpu).record([&] { run(context, call); });
  graph->launch();
  return bench.get(there);
}

// Needs no GPU.
TEST(NewtonSchulzOnHopper, ServesWholeChunks) {
  const auto serves = [](int64_t rows, int64_t columns) {
    return cuda::hopper::serves_newton_schulz(DType::f16, rows, columns);
  };
  if (!serves(512, 512)) GTEST_SKIP() << "built for other chips";
  EXPECT_TRUE(serves(8, 8) && serves(96, 320) && serves(321, 96));
  EXPECT_FALSE(serves(96, 321) || serves(12, 96) || serves(96, 12));
  EXPECT_FALSE(cuda::hopper::serves_newton_schulz(DType::f32, 512, 512));
}

// Needs no GPU.
TEST(CudaFailure, SaysWhatToDo) {
  const auto said = [](cudaError_t status) {
    return error_of([&] { cuda::fail_in(status, "in", "cudaMemcpyAsync"); });
  };
  EXPECT_THAT(said(cudaErrorLaunchFailure),
              testing::HasSubstr("(cudaErrorLaunchFailure) in cudaMemcpyAsync; "));
  EXPECT_THAT(said(cudaErrorLaunchFailure), testing::HasSubstr("train --resume"));
  EXPECT_THAT(said(cudaErrorECCUncorrectable), testing::HasSubstr("another GPU"));
  EXPECT_THAT(said(cudaErrorInvalidValue), testing::EndsWith("in cudaMemcpyAsync"));
}

TEST_F(GpuOps, MuonByCublas) {
  const PreferredProducts preferred(cuda::MuonProducts::cublas);
  expect_all_pass(verify::check_muon(kGpu, verify::Effort::thorough));
}

struct Matrices {
  int64_t count, rows, columns;
};

// Our kernels beside cuBLAS in the same dtype and in f32; again, and recorded.
void expect_newton_schulz_agrees(std::initializer_list<Matrices> all) {
  verify::CheckList list;
  for (const DType dtype : {DType::f16, DType::bf16})
    for (const auto& [count, rows, columns] : all) {
      const verify::Floats x = unit_matrices(count, rows, columns);
      const verify::Floats truth =
          orthogonal(verify::as_stored(x, dtype), {count, rows, columns}, DType::f32);
      const verify::Floats by_cublas = [&] {
        const PreferredProducts preferred(cuda::MuonProducts::cublas);
        return orthogonal(x, {count, rows, columns}, dtype);
      }();
      const PreferredProducts preferred(cuda::MuonProducts::own);
      const verify::Floats ours = orthogonal(x, {count, rows, columns}, dtype);
      const std::string name = fmt::format("{}, {} of ({}, {})", name_of(dtype), count, rows, columns);
      list.compare(name, ours, by_cublas, verify::widened(truth), dtype == DType::f16 ? 3e-3 : 2e-2);
      list.same_bits(name + ", again", ours, orthogonal(x, {count, rows, columns}, dtype));
      if (count <= 3)
        list.same_bits(name + ", recorded", ours, orthogonal(x, {count, rows, columns}, dtype, true));
    }
  expect_all_pass(list.take());
}

// The kernels of a Hopper chip: sizes at which tiles are whole and cut, and more tiles than multiprocessors.
TEST_F(GpuOps, NewtonSchulzOfLargeMatrices) {
  expect_newton_schulz_agrees({{1, 264, 328},
                               {30, 264, 328},
                               {3, 384, 384},
                               {1, 512, 512},
                               {30, 512, 512},
                               {3, 640, 640},
                               {3, 2048, 512},
                               {3, 512, 2048},
                               {1, 2560, 640},
                               {2, 1032, 520},
                               {2, 520, 1032},
                               {5, 1024, 1024}});
}

// Sums of no more blocks than the ring has stages, in tiles of which each block of threads takes many.
TEST_F(GpuOps, NewtonSchulzOfShortSums) {
  expect_newton_schulz_agrees(
      {{3, 64, 128}, {480, 96, 320}, {480, 320, 96}, {300, 192, 192}, {300, 256, 256}});
}
TEST_F(GpuOps, NewtonSchulzOfShortSumsIsTheSameEachTime) {
  for (const auto& [rows, columns] : {std::pair{96, 320}, {320, 96}, {192, 192}, {256, 256}}) {
    const verify::Floats x = unit_matrices(480, rows, columns);
    const verify::Floats first = orthogonal(x, {480, rows, columns}, DType::bf16);
    for (int time = 1; time < 20; ++time)
      ASSERT_EQ(orthogonal(x, {480, rows, columns}, DType::bf16), first)
          << rows << " x " << columns << ", time " << time;
  }
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
